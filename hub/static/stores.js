/**
 * What the files for React, Vue and Svelte share: stores over a hub. A store has `get()`, the present state as an
 * object that never changes, and `subscribe(listener)`, which returns a function that ends it.
 *
 * Components that follow the same channel share one subscription, from the first of them to the last.
 */

/** @typedef {import("./hub.js").Hub} Hub */
/** @typedef {import("./hub.js").SubscribeOptions & {keep?: number}} FollowOptions */

const KEEP = 100;
const FLAGS = ["recoverable", "positioned", "joinLeave"];

const nobody = { clients: [], state: "unsubscribed", error: null };
const nothing = {
  publications: [], state: "unsubscribed", missed: false, error: null,
  publish: async () => { throw new Error("no channel is followed here yet"); },
};

/** @type {WeakMap<Hub, Map<string, Channel>>} */
const channels = new WeakMap();

/** A channel that components follow. */
class Channel {
  followed = nothing;
  present = nobody;
  #hub;
  #name;
  #users = new Set();
  #subscription = null;
  #options = {};
  #position = null;
  #clients = new Map();
  #changes = null; // joins and leaves during a presence call, which may be missing from its result

  constructor(hub, name) {
    this.#hub = hub;
    this.#name = name;
    const publish = (data, options) => (
      this.#subscription ? this.#subscription.publish(data, options) : hub.publish(name, data, options)
    );
    this.followed = { ...nothing, publish };
  }

  /** @param {FollowOptions} options @param {() => void} listener @returns a function that ends it */
  add(options, listener) {
    const user = { options, listener };
    this.#users.add(user);
    queueMicrotask(() => this.#settle());
    return () => {
      this.#users.delete(user);
      queueMicrotask(() => this.#settle()); // another component may take over within this tick
    };
  }

  /** Subscribe for the first user, again where a user wants more, and unsubscribe after the last. */
  #settle() {
    if (!this.#users.size) return this.#leave();
    const wanted = this.#wanted();
    if (!this.#subscription) return this.#subscribe(wanted);
    const isMoreHistory = (wanted.rewind ?? 0) > (this.#options.rewind ?? 0);
    if (!isMoreHistory && !FLAGS.some((flag) => wanted[flag] && !this.#options[flag])) return;
    this.#end();
    if (isMoreHistory) this.followed = { ...this.followed, publications: [] };
    this.#subscribe({ ...wanted, since: isMoreHistory ? wanted.since : this.#position ?? wanted.since });
  }

  /** The options of all users together: those of the first user count, flags and numbers are the most of any. */
  #wanted() {
    const all = [...this.#users].map(({ options }) => options);
    const wanted = Object.assign({}, ...[...all].reverse());
    for (const flag of FLAGS) if (all.some((options) => options[flag])) wanted[flag] = true;
    const rewind = Math.max(...all.map((options) => options.rewind ?? 0));
    if (rewind) wanted.rewind = rewind;
    return wanted;
  }

  get #keep() { return Math.max(...[...this.#users].map(({ options }) => options.keep ?? KEEP)); }

  #subscribe({ keep, ...options }) {
    this.#options = options;
    let subscription;
    try {
      subscription = this.#subscription = this.#hub.subscribe(this.#name, options);
    } catch (error) {
      return this.#fail(error);
    }
    const current = (listener) => (context) => { if (subscription === this.#subscription) listener(context); };
    const listeners = {
      subscribing: () => this.#enter("subscribing"),
      subscribed: (context) => this.#subscribed(context),
      unsubscribed: () => this.#enter("unsubscribed"),
      publication: (publication) => this.#publication(publication),
      join: ({ info }) => this.#moved(info, true),
      leave: ({ info }) => this.#moved(info, false),
      error: ({ error }) => this.#fail(error),
    };
    for (const [event, listener] of Object.entries(listeners)) subscription.on(event, current(listener));
    this.#enter(subscription.state);
  }

  #end() {
    const subscription = this.#subscription;
    this.#subscription = null;
    subscription?.unsubscribe();
  }

  #leave() {
    this.#end();
    if (channels.get(this.#hub)?.get(this.#name) === this) channels.get(this.#hub).delete(this.#name);
  }

  #fail(error) {
    this.present = { ...this.present, error };
    this.#follow({ error });
  }

  #enter(state) {
    this.present = { ...this.present, state };
    this.#follow({ state });
  }

  #subscribed({ wasRecovering, recovered, streamPosition }) {
    this.#position = streamPosition ? { ...streamPosition } : null;
    if (this.#options.joinLeave) this.#count();
    this.present = { ...this.present, state: "subscribed" };
    this.#follow({ state: "subscribed", error: null, missed: wasRecovering && !recovered });
  }

  #publication(publication) {
    if (this.#position && publication.offset > this.#position.offset) this.#position.offset = publication.offset;
    this.#follow({ publications: [...this.followed.publications, publication].slice(-this.#keep) });
  }

  async #count() {
    const changes = this.#changes = [];
    try {
      const { clients } = await this.#subscription.presence();
      if (changes !== this.#changes) return;
      this.#clients = new Map(Object.entries(clients));
      for (const [info, isHere] of changes) this.#move(info, isHere);
      this.#show({ error: null });
    } catch (error) {
      if (changes === this.#changes) this.#show({ error });
    }
    this.#changes = null;
  }

  #moved(info, isHere) {
    this.#changes?.push([info, isHere]);
    this.#move(info, isHere);
    this.#show({});
  }

  #move(info, isHere) {
    if (isHere) this.#clients.set(info.client, info);
    else this.#clients.delete(info.client);
  }

  #show(change) {
    this.present = { ...this.present, clients: [...this.#clients.values()], ...change };
    this.#tell();
  }

  #follow(change) {
    this.followed = { ...this.followed, ...change };
    this.#tell();
  }

  #tell() {
    for (const { listener } of this.#users) listener();
  }
}

/** @returns {Channel} that the components of a hub share */
function channelOf(hub, name) {
  if (!channels.has(hub)) channels.set(hub, new Map());
  const named = channels.get(hub);
  if (!named.has(name)) named.set(name, new Channel(hub, name));
  return named.get(name);
}

/** A store of one part of a channel. Each listener looks its channel up again, since the last listener released it. */
function storeOf(hub, name, options, part, empty) {
  let channel = null;
  return {
    get: () => (channel ?? channels.get(hub)?.get(name))?.[part] ?? empty,
    empty,
    subscribe(listener) {
      if (!name) return () => {};
      channel = channelOf(hub, name);
      return channel.add(options, listener);
    },
  };
}

/**
 * What is published to a channel.
 * @param {Hub} hub @param {string | null | undefined} channel that is followed; without a name none is
 * @param {FollowOptions} [options]
 */
export function subscriptionStore(hub, channel, options = {}) {
  return storeOf(hub, channel, options, "followed", nothing);
}

/** Who is in a channel. @param {Hub} hub @param {string | null | undefined} channel @param {FollowOptions} [options] */
export function presenceStore(hub, channel, options = {}) {
  return storeOf(hub, channel, { ...options, joinLeave: true }, "present", nobody);
}

/** The state of the connection. @param {Hub} hub */
export function connectionStore(hub) {
  return {
    get: () => hub.state,
    empty: "disconnected",
    subscribe(listener) {
      const events = ["connecting", "connected", "disconnected"];
      for (const event of events) hub.on(event, listener);
      return () => { for (const event of events) hub.off(event, listener); };
    },
  };
}
