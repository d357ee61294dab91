/** Vue composables for `hub.js`. */

import { computed, getCurrentScope, inject, onScopeDispose, provide, shallowRef, toValue, watch } from "vue";

import { connectionStore, presenceStore, subscriptionStore } from "./stores.js";

const KEY = Symbol("hub-realtime");
const isServer = typeof document === "undefined";

/** A plugin that gives a hub to all components: `app.use(hubPlugin(hub))`. */
export function hubPlugin(hub) {
  return { install: (app) => app.provide(KEY, hub) };
}

/** Give a hub to the components inside this one. */
export function provideHub(hub) { provide(KEY, hub); }

/** The hub that the app, or a component above, gives. */
export function useHub() {
  const hub = inject(KEY, null);
  if (!hub) throw new Error("this component has no hub: app.use(hubPlugin(hub)), or provideHub(hub) above it");
  return hub;
}

/** What is published to a channel: a ref for each part. The channel may be a ref or a getter. */
export function useSubscription(channel, options) {
  const hub = useHub();
  const followed = useStore(() => toValue(channel), (name) => subscriptionStore(hub, name, options));
  return {
    ...parts(followed, "publications", "state", "missed", "error"),
    publish: (data, publishOptions) => followed.value.publish(data, publishOptions),
  };
}

/** Who is in a channel: a ref for each part. */
export function usePresence(channel, options) {
  const hub = useHub();
  const present = useStore(() => toValue(channel), (name) => presenceStore(hub, name, options));
  return parts(present, "clients", "state", "error");
}

/** The state of the connection, as a ref. */
export function useConnectionState() {
  const hub = useHub();
  return useStore(() => hub, connectionStore);
}

function parts(ref, ...names) {
  return Object.fromEntries(names.map((name) => [name, computed(() => ref.value[name])]));
}

/** A ref to what a store holds; another store where its source changes. */
function useStore(source, storeOf) {
  const value = shallowRef(storeOf(source()).empty);
  if (isServer) return value;
  let stop = () => {};
  watch(source, (now) => {
    stop();
    const store = storeOf(now);
    stop = store.subscribe(() => { value.value = store.get(); });
    value.value = store.get();
  }, { immediate: true });
  if (getCurrentScope()) onScopeDispose(() => stop());
  return value;
}
