/** The types that the files for React, Vue and Svelte share. */

import type { ClientInfo, Publication, PublishOptions, SubscribeOptions, SubscriptionState } from "./hub.js";

export interface FollowOptions extends SubscribeOptions {
  /** So many publications are kept, the newest; 100 by default. */
  keep?: number;
}

export interface Followed<T = any> {
  /** The newest publications, from the oldest to the newest. */
  publications: Publication<T>[];
  state: SubscriptionState;
  /** Whether history no longer held all that was missed before the last reconnect. */
  missed: boolean;
  /** What failed last; null once the subscription is there. */
  error: Error | null;
  publish(data: T, options?: PublishOptions): Promise<void>;
}

export interface Present {
  clients: ClientInfo[];
  state: SubscriptionState;
  error: Error | null;
}
