import type { ReactElement, ReactNode } from "react";
import type { ConnectionState, Hub } from "./hub.js";
import type { Followed, FollowOptions, Present } from "./stores.js";

export type { Followed, FollowOptions, Present } from "./stores.js";

/** Give a hub to the components inside. */
export function HubProvider(props: { hub: Hub; children?: ReactNode }): ReactElement;
/** The hub of the nearest `HubProvider`. */
export function useHub(): Hub;
/** What is published to a channel; without a channel nothing is followed. */
export function useSubscription<T = any>(channel: string | null | undefined, options?: FollowOptions): Followed<T>;
/** Who is in a channel. */
export function usePresence(channel: string | null | undefined, options?: FollowOptions): Present;
/** The state of the connection. */
export function useConnectionState(): ConnectionState;
