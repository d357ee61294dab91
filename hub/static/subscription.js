/** A subscription of `hub.js`. */

import {
  checkOptions, CLOSED, clientInfo, Emitter, isNews, Lease, positionAfter, positionOf,
  publication, subscribedContext, TIMEOUT,
} from "./common.js";

/** @typedef {import("./common.js").ClientInfo} ClientInfo */
/** @typedef {import("./common.js").Publication} Publication */
/** @typedef {import("./common.js").StreamPosition} StreamPosition */

const OPTIONS = ["token", "getToken", "data", "recoverable", "positioned", "joinLeave", "since", "rewind",
  "tagsFilter"];
const UNRECOVERABLE = 112; // the channel began another epoch meanwhile
const HISTORY_OPTIONS = ["limit", "since", "reverse"];
const EVENTS = ["subscribing", "subscribed", "unsubscribed", "publication", "join", "leave", "error"];

/**
 * A subscription to one channel. Events: `subscribing` {code, reason}; `subscribed` {wasRecovering, recovered,
 * recoverable, positioned, data, streamPosition}, before the publications that it recovered or rewound; `unsubscribed`
 * {code, reason}; `publication`; `join` and `leave` {info}; `error` {type, error}, after which it tries again if the
 * error is `temporary`, and else ends.
 * Each has its `channel`.
 */
export class Subscription extends Emitter {
  /** @type {"unsubscribed" | "subscribing" | "subscribed"} */
  state = "unsubscribed";
  #hub;
  #options;
  #lease;
  #position;
  #held = null; // pushes that wait for the history before them
  #turn = 0;
  #attempt = 0;
  #timer;

  /** @param {import("./hub.js").Hub} hub @param {string} channel made by `Hub.subscribe` */
  constructor(hub, channel, options = {}) {
    super(EVENTS);
    if (typeof channel !== "string" || !channel) throw new TypeError(`a channel's name is a string, not ${channel}`);
    checkOptions(options, OPTIONS, "subscribe");
    const { rewind, tagsFilter } = options;
    if (rewind !== undefined && !(Number.isInteger(rewind) && rewind > 0)) {
      throw new TypeError(`rewind is a number of publications above 0, not ${rewind}`);
    }
    if (rewind && tagsFilter) throw new TypeError("rewind and tagsFilter exclude each other: history has no filter");
    this.channel = channel;
    this.#hub = hub;
    this.#options = options;
    this.#lease = new Lease(options, { channel }, {
      present: (token, done) => hub._call("sub_refresh", { channel, token }, done),
      problem: (error) => this._emit("error", { channel, type: "refreshToken", error }),
      refused: (code, reason) => {
        this.#leave();
        this.#end(code, reason);
      },
    });
    this.#position = options.since ? { ...options.since } : null;
  }

  /** Subscribe again after `unsubscribe`; what was missed is recovered where the channel allows. */
  subscribe() {
    if (this.state !== "unsubscribed") return;
    this.#hub._add(this);
    this.#set("subscribing", 0, "subscribe called");
    if (this.#hub.state === "connected") this._start();
  }

  /** Leave the channel. */
  unsubscribe() {
    if (this.state === "unsubscribed") return;
    this.#leave();
    this.#end(0, "unsubscribe called");
  }

  /** As `Hub.publish`, once the subscription is there. @param {any} data @param {{idempotencyKey?: string}} [options] */
  async publish(data, options) { await this.#hub._publish(this.channel, data, options, this); }

  /**
   * @param {{limit?: number, since?: StreamPosition, reverse?: boolean}} [options] limit 0 asks for the position
   *   alone, -1 for all that the hub gives
   * @returns {Promise<{publications: Publication[], epoch: string, offset: number}>}
   */
  async history(options = {}) {
    checkOptions(options, HISTORY_OPTIONS, "history");
    const { limit, since, reverse } = options;
    const result = await this.#request("history", { limit, since, reverse });
    const { publications = [], epoch = "", offset = 0 } = result;
    return { publications: publications.map((pub) => publication(this.channel, pub)), epoch, offset };
  }

  /** @returns {Promise<{clients: Record<string, ClientInfo>}>} */
  async presence() {
    const { presence = {} } = await this.#request("presence");
    const clients = Object.entries(presence).map(([id, info]) => [id, clientInfo(info)]);
    return { clients: Object.fromEntries(clients) };
  }

  /** @returns {Promise<{numClients: number, numUsers: number}>} */
  async presenceStats() {
    const result = await this.#request("presence_stats");
    return { numClients: result.num_clients ?? 0, numUsers: result.num_users ?? 0 };
  }

  #request(method, params) {
    return this.#hub._request(method, { channel: this.channel, ...params }, this);
  }

  #set(state, code, reason) {
    this.state = state;
    this.#pause();
    this._emit(state, { channel: this.channel, code, reason });
  }

  /** Drop what the earlier state still waits for. */
  #pause() {
    this.#turn++;
    this.#held = null;
    clearTimeout(this.#timer);
    this.#lease.stop();
  }

  #end(code, reason) {
    this.#hub._remove(this);
    this.#set("unsubscribed", code, reason);
  }

  #leave() {
    if (this.#hub.state !== "connected") return;
    this.#hub._call("unsubscribe", { channel: this.channel }, (error) => {
      if (error && error.code !== CLOSED) this.#hub._reconnect(4, "unsubscribe error");
    });
  }

  /** @internal The connection is there. */
  async _start() {
    const turn = ++this.#turn;
    const { data, recoverable, positioned, joinLeave, rewind, tagsFilter } = this.#options;
    if (this.#lease.isMissing) {
      try {
        await this.#lease.fetch();
      } catch (error) {
        if (turn === this.#turn) this.#retry("subscribeToken", error);
        return;
      }
      if (turn !== this.#turn) return;
      if (this.#lease.isMissing) return this.#end(1, "unauthorized");
    }
    const recovery = this.#position && { recover: true, ...this.#position };
    const params = {
      channel: this.channel, token: this.#lease.token, data,
      recoverable: rewind ? true : recoverable, positioned, join_leave: joinLeave, tf: tagsFilter, ...recovery,
    };
    this.#hub._call("subscribe", params, (error, result) => {
      if (turn === this.#turn && error?.code !== CLOSED) this.#answered(error, result);
    });
  }

  #answered(error, result) {
    if (!error && this.#options.rewind && !result.recovered) this.#rewind(result);
    else if (!error) this.#subscribed(result);
    else if (error.code === TIMEOUT) this.#hub._reconnect(3, "subscribe timeout");
    else if (error.code === 109 && this.#lease.isRenewable) {
      this.#lease.token = "";
      this.#retry("subscribe", error);
    } else if (error.temporary) this.#retry("subscribe", error);
    else {
      this._emit("error", { channel: this.channel, type: "subscribe", error });
      if (this.state === "subscribing") this.#end(error.code, error.message);
    }
  }

  /** Read the history up to the position of a subscribe result. What is pushed from there on is held. */
  #rewind(result) {
    const turn = ++this.#turn;
    this.#held = [];
    const { epoch, offset } = positionOf(result) ?? {};
    const since = epoch && { epoch, offset: offset + 1 };
    const params = { channel: this.channel, limit: this.#options.rewind, reverse: true, since };
    this.#hub._call("history", params, (error, history) => {
      if (turn !== this.#turn || error?.code === CLOSED) return;
      if (error?.temporary || error?.code === UNRECOVERABLE) {
        this.#leave();
        this._suspend();
        return this.#retry("history", error);
      }
      if (error) this._emit("error", { channel: this.channel, type: "history", error });
      if (turn === this.#turn) this.#subscribed(result, history?.publications?.reverse());
    });
  }

  #subscribed(result, rewound = []) {
    const turn = ++this.#turn;
    const held = this.#held ?? [];
    this.#held = null;
    this.state = "subscribed";
    this.#attempt = 0;
    if (!result.recovered) this.#position = this.#options.rewind ? this.#seenOf(result) : null;
    this.#lease.renewIn(result);
    this._emit("subscribed", { channel: this.channel, ...subscribedContext(result) });
    for (const pub of [...rewound, ...(result.publications ?? [])]) this._push({ pub });
    for (const push of held) this._push(push);
    if (turn !== this.#turn) return; // a listener ended it
    this.#position = positionAfter(this.#position, result);
    this.#hub._release();
  }

  /** The last publication of this epoch that was seen: a rewind does not bring it again. */
  #seenOf({ epoch }) {
    return this.#position && this.#position.epoch === epoch ? this.#position : { epoch, offset: 0 };
  }

  #retry(type, error) {
    this._emit("error", { channel: this.channel, type, error });
    if (this.state === "subscribing") this.#startLater();
  }

  #startLater() {
    const start = () => this.#hub.state === "connected" && this._start();
    this.#timer = setTimeout(start, this.#hub._backoff(this.#attempt++));
  }

  /** @internal */
  _push(push) {
    const { channel } = this;
    const { pub, join, leave, unsubscribe } = push;
    if (this.#held && !unsubscribe) this.#held.push(push);
    else if (this.state !== "subscribed" && !this.#held) return;
    else if (join) this._emit("join", { channel, info: clientInfo(join.info) });
    else if (leave) this._emit("leave", { channel, info: clientInfo(leave.info) });
    else if (unsubscribe) this.#unsubscribed(unsubscribe);
    else if (pub && isNews(pub, this.#position)) this._emit("publication", publication(channel, pub));
  }

  #unsubscribed({ code = 0, reason = "" }) {
    if (code < 2500) return this.#end(code, reason);
    this._suspend(code, reason);
    this.#startLater(); // not at once: all subscribers may have been told
  }

  /** @internal The connection is gone, or the hub wants this to begin again. */
  _suspend(code, reason) {
    if (this.state === "subscribed") this.#set("subscribing", code, reason);
    this.#pause();
  }
}
