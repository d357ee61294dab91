/** A subscription of `hub.js`. */

import {
  checkOptions, CLOSED, clientInfo, Emitter, isNews, Lease, positionAfter, publication, subscribedContext, TIMEOUT,
} from "./common.js";

/** @typedef {import("./common.js").ClientInfo} ClientInfo */
/** @typedef {import("./common.js").Publication} Publication */
/** @typedef {import("./common.js").StreamPosition} StreamPosition */

const OPTIONS = ["token", "getToken", "data", "recoverable", "positioned", "joinLeave", "since", "tagsFilter"];

/**
 * A subscription to one channel. Events: `subscribing` {code, reason}; `subscribed` {wasRecovering, recovered,
 * recoverable, positioned, data, streamPosition}, before the publications that it recovered; `unsubscribed`
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
  #turn = 0;
  #attempt = 0;
  #timer;

  /** @param {import("./hub.js").Hub} hub @param {string} channel made by `Hub.subscribe` */
  constructor(hub, channel, options = {}) {
    super();
    if (typeof channel !== "string" || !channel) throw new TypeError(`a channel's name is a string, not ${channel}`);
    checkOptions(options, OPTIONS, "subscribe");
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

  /** @param {any} data */
  async publish(data) { await this.#request("publish", { data }); }

  /**
   * @param {{limit?: number, since?: StreamPosition, reverse?: boolean}} [options] limit 0 asks for the position
   *   alone, -1 for all that the hub gives
   * @returns {Promise<{publications: Publication[], epoch: string, offset: number}>}
   */
  async history({ limit, since, reverse } = {}) {
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
    this.#turn++;
    clearTimeout(this.#timer);
    this.#lease.stop();
    this._emit(state, { channel: this.channel, code, reason });
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
    const { data, recoverable, positioned, joinLeave, tagsFilter } = this.#options;
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
      recoverable, positioned, join_leave: joinLeave, tf: tagsFilter, ...recovery,
    };
    this.#hub._call("subscribe", params, (error, result) => {
      if (turn === this.#turn && error?.code !== CLOSED) this.#answered(error, result);
    });
  }

  #answered(error, result) {
    if (!error) this.#subscribed(result);
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

  #subscribed(result) {
    const turn = ++this.#turn;
    this.state = "subscribed";
    this.#attempt = 0;
    if (!result.recovered) this.#position = null;
    this.#lease.renewIn(result);
    this._emit("subscribed", { channel: this.channel, ...subscribedContext(result) });
    for (const pub of result.publications ?? []) this._push({ pub });
    if (turn !== this.#turn) return; // a listener ended it
    this.#position = positionAfter(this.#position, result);
    this.#hub._release();
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
  _push({ pub, join, leave, unsubscribe }) {
    const { channel } = this;
    if (this.state !== "subscribed") return;
    if (join) this._emit("join", { channel, info: clientInfo(join.info) });
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
    this.#turn++;
    clearTimeout(this.#timer);
    this.#lease.stop();
  }
}
