/** React hooks for `hub.js`. */

import { createContext, createElement, useContext, useMemo, useSyncExternalStore } from "react";

import { connectionStore, presenceStore, subscriptionStore } from "./stores.js";

const HubContext = createContext(null);

/** Give a hub to the components inside. */
export function HubProvider({ hub, children }) {
  return createElement(HubContext.Provider, { value: hub }, children);
}

/** The hub of the nearest `HubProvider`. */
export function useHub() {
  const hub = useContext(HubContext);
  if (!hub) throw new Error("this component has no hub: put it inside <HubProvider hub={hub}>");
  return hub;
}

/** What is published to a channel. The options are those of the first render with this channel. */
export function useSubscription(channel, options) {
  const hub = useHub();
  return useStore(useMemo(() => subscriptionStore(hub, channel, options), [hub, channel]));
}

/** Who is in a channel. */
export function usePresence(channel, options) {
  const hub = useHub();
  return useStore(useMemo(() => presenceStore(hub, channel, options), [hub, channel]));
}

/** The state of the connection. */
export function useConnectionState() {
  const hub = useHub();
  return useStore(useMemo(() => connectionStore(hub), [hub]));
}

function useStore({ subscribe, get, empty }) {
  return useSyncExternalStore(subscribe, get, () => empty);
}
