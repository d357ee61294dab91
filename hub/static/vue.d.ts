import type { ComputedRef, MaybeRefOrGetter, Plugin, ShallowRef } from "vue";
import type { ConnectionState, Hub } from "./hub.js";
import type { Followed, FollowOptions, Present } from "./stores.js";

export type { FollowOptions } from "./stores.js";

type Refs<T> = { [K in keyof T]: ComputedRef<T[K]> };

/** A plugin that gives a hub to all components. */
export function hubPlugin(hub: Hub): Plugin;
/** Give a hub to the components inside this one. */
export function provideHub(hub: Hub): void;
/** The hub that the app, or a component above, gives. */
export function useHub(): Hub;
/** What is published to a channel; without a channel nothing is followed. */
export function useSubscription<T = any>(
  channel: MaybeRefOrGetter<string | null | undefined>, options?: FollowOptions,
): Refs<Omit<Followed<T>, "publish">> & Pick<Followed<T>, "publish">;
/** Who is in a channel. */
export function usePresence(
  channel: MaybeRefOrGetter<string | null | undefined>, options?: FollowOptions,
): Refs<Present>;
/** The state of the connection. */
export function useConnectionState(): Readonly<ShallowRef<ConnectionState>>;
