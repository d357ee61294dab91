/** Svelte stores for `hub.js`: read them with `$`. */

import { getContext, setContext } from "svelte";

import { connectionStore, presenceStore, subscriptionStore } from "./stores.js";

const KEY = Symbol("hub-realtime");

/** Give a hub to the components inside this one. */
export function setHub(hub) { return setContext(KEY, hub); }

/** The hub that a component above gives. */
export function useHub() {
  const hub = getContext(KEY);
  if (!hub) throw new Error("this component has no hub: call setHub(hub) in a component above it");
  return hub;
}

/** What is published to a channel. */
export function useSubscription(channel, options) {
  return readable(subscriptionStore(useHub(), channel, options));
}

/** Who is in a channel. */
export function usePresence(channel, options) {
  return readable(presenceStore(useHub(), channel, options));
}

/** The state of the connection. */
export function useConnectionState() {
  return readable(connectionStore(useHub()));
}

/** As Svelte wants it: each listener is told the present state at once. */
function readable(store) {
  return {
    subscribe(listener) {
      const stop = store.subscribe(() => listener(store.get()));
      listener(store.get());
      return stop;
    },
  };
}
