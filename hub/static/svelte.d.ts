import type { Readable } from "svelte/store";
import type { ConnectionState, Hub } from "./hub.js";
import type { Followed, FollowOptions, Present } from "./stores.js";

export type { Followed, FollowOptions, Present } from "./stores.js";

/** Give a hub to the components inside this one. */
export function setHub(hub: Hub): Hub;
/** The hub that a component above gives. */
export function useHub(): Hub;
/** What is published to a channel; without a channel nothing is followed. */
export function useSubscription<T = any>(
  channel: string | null | undefined, options?: FollowOptions,
): Readable<Followed<T>>;
/** Who is in a channel. */
export function usePresence(channel: string | null | undefined, options?: FollowOptions): Readable<Present>;
/** The state of the connection. */
export function useConnectionState(): Readable<ConnectionState>;
