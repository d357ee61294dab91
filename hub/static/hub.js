/**
 * A browser's client of a hub: one WebSocket, its subscriptions, and the way back after a broken link.
 *
 *     import { Hub } from "/static/hub.js";
 *     const hub = new Hub("https://hub.example");
 *     hub.subscribe("news").on("publication", ({ data }) => console.log(data));
 *     hub.connect();
 *
 * Names, states and codes are those of the Centrifuge SDKs.
 */

import { Calls } from "./calls.js";
import {
  Alarm, backoff, checkOptions, clientInfo, CLOSED, diagnose, Emitter, endpoint, failure, HubError, isNews, Lease,
  positionAfter, publication, subscribedContext, TIMEOUT, withDefaults,
} from "./common.js";
import { StreamSocket } from "./stream.js";
import { Subscription } from "./subscription.js";

export {
  HubError, MessageExpiredError, MessageTooLargeError, QueueFullError, UnauthorizedError,
} from "./common.js";
export { Subscription };

/** @typedef {import("./common.js").GetToken} GetToken */
/** @typedef {import("./common.js").StreamPosition} StreamPosition */

const PING_DELAY_MS = 10_000;
const OPTIONS = ["token", "getToken", "data", "name", "minReconnectDelay", "maxReconnectDelay", "timeout",
  "credentials", "outbox"];
const DEFAULTS = {
  name: "hub.js", minReconnectDelay: 500, maxReconnectDelay: 20_000, timeout: 5000, credentials: "same-origin",
};
const OUTBOX = { maxMessages: 100, maxAge: 60_000 };
const EVENTS = ["connecting", "connected", "disconnected", "error", "message", "subscribed", "subscribing",
  "unsubscribed", "publication", "join", "leave"];
const BLOCKED_MIN = 2; // failed handshakes of WebSockets, with the hub there, until a stream is tried
const FRAME_CHARS_MAX = 16_000; // at most three bytes each, so well under the usual limit of 64 KiB
const CHARACTER_BYTES_MAX = 3;

/**
 * The connection. Events: `connecting` {code, reason, attempt, delay}, with the milliseconds to the next try;
 * `connected` {client, data}; `disconnected` {code, reason}, after which only `connect` brings it back; `error`
 * {type, error, url, transport, answer}: what failed, the address and the transport that were tried, and what came
 * back, in words; `message` {data}; and for server-side subscriptions `subscribed`, `subscribing`,
 * `unsubscribed`, `publication`, `join`, `leave`, each with its `channel`.
 */
export class Hub extends Emitter {
  /** @type {"disconnected" | "connecting" | "connected"} */
  state = "disconnected";
  #options;
  #data;
  #lease;
  #reconnectToken = ""; // the hub's own token to reconnect with, presented in place of the app's
  #isRefused = false; // the last handshake failed, for a reason that a browser does not tell
  #diagnosis = null; // what the hub answers about it, as a promise
  #isToldToWait = false;
  #blocked = 0; // handshakes of WebSockets that failed though the hub answers other requests
  #isStreaming = false;
  #socket = null;
  #turn = 0; // grows with each attempt and end, so that what was awaited for an older one is dropped
  #attempt = 0;
  #calls;
  #pong = false;
  #patienceMs = 0;
  #bytesMax = 0; // of a message, as the hub told with the connect result; 0 where it did not
  #retryTimer;
  #openAlarm;
  #pingAlarm;
  #isProbing = false;
  #out = []; // commands of this tick, to go in one frame
  #subscriptions = new Map();
  #server = new Map(); // server-side subscriptions: channel to position, or null
  #onWake = ({ type }) => {
    if (type === "offline") this.#probe(); // the browser may be wrong, so it is only asked whether the link lives
    else if (globalThis.document?.visibilityState !== "hidden") this.#wake();
  };

  /**
   * @param {string} url the hub's address, or its WebSocket endpoint's
   * @param {{token?: string, getToken?: GetToken, data?: any, name?: string, minReconnectDelay?: number,
   *   maxReconnectDelay?: number, timeout?: number, credentials?: RequestCredentials,
   *   outbox?: {maxMessages?: number, maxAge?: number}}} [options] times in milliseconds; `credentials` says as for
   *   `fetch` whether requests carry cookies where WebSockets do not pass; `outbox` bounds the publishes that are
   *   kept while there is no connection
   */
  constructor(url, options = {}) {
    super(EVENTS);
    checkOptions(options, OPTIONS, "Hub");
    checkOptions(options.outbox ?? {}, Object.keys(OUTBOX), "outbox");
    this.url = endpoint(url);
    this.#options = withDefaults(DEFAULTS, options, "Hub");
    const outbox = withDefaults(OUTBOX, options.outbox ?? {}, "outbox");
    this.#data = options.data;
    this.#calls = new Calls(this.#options.timeout, outbox, {
      isReady: (call) => this.#isReady(call),
      write: (command) => this.#write(command),
      probe: () => this.#probe(),
    });
    this.#lease = new Lease(options, {}, {
      present: (token, done) => {
        this.#reconnectToken = ""; // the app's token is newer, and may grant other channels
        this._call("refresh", { token }, done);
      },
      problem: (error) => this.#problem("refreshToken", error),
      refused: (code, reason) => this.#stop(code, reason),
    });
  }

  /** Connect, and stay connected until `disconnect` or a refusal. */
  connect() {
    if (this.state !== "disconnected") return;
    this.state = "connecting";
    this.#attempt = 0;
    for (const [target, event] of wakers()) target.addEventListener(event, this.#onWake);
    this._emit("connecting", { code: 0, reason: "connect called", attempt: 0, delay: 0 });
    this.#open();
  }

  /** Close the connection. Nothing but `connect` opens it again. */
  disconnect() {
    this.#flush();
    this.#stop(0, "disconnect called");
  }

  /** @param {string} token used from the next connect on */
  setToken(token) {
    this.#lease.token = token;
    this.#reconnectToken = "";
  }

  /** @param {any} data sent from the next connect on, which is a login */
  setData(data) {
    this.#data = data;
    this.#reconnectToken = "";
  }

  /**
   * Subscribe to a channel now and after each reconnect, until its `unsubscribe`.
   * @param {string} channel
   * @param {{token?: string, getToken?: GetToken, data?: any, recoverable?: boolean, positioned?: boolean,
   *   joinLeave?: boolean, since?: StreamPosition, tagsFilter?: any}} [options]
   */
  subscribe(channel, options) {
    const subscription = new Subscription(this, channel, options);
    subscription.subscribe();
    return subscription;
  }

  /**
   * Publish. While there is no connection the publish waits in the outbox. After a broken link it is repeated with
   * its key, so that the hub publishes it once.
   * @param {string} channel @param {any} data
   * @param {{idempotencyKey?: string}} [options] a key of your own, to repeat a publish that failed
   */
  async publish(channel, data, options) { await this._publish(channel, data, options); }

  /** Call a method of the app. @param {string} method @param {any} [data] @returns {Promise<{data: any}>} */
  async rpc(method, data) { return { data: (await this._request("rpc", { method, data })).data }; }

  /** Send a message that gets no reply. @param {any} data */
  async send(data) { await this._request("send", { data }); }

  /** @internal */
  _publish(channel, data, options = {}, subscription) {
    checkOptions(options, ["idempotencyKey"], "publish");
    return this._request("publish", { channel, data }, subscription, options.idempotencyKey);
  }

  /** @internal As a promise. */
  _request(method, params, subscription, key) {
    return new Promise((resolve, reject) => {
      this._call(method, params, (error, result) => (error ? reject(error) : resolve(result)), subscription, key);
    });
  }

  /** @internal `done` runs in the order of the replies and pushes, which a promise would not keep. */
  _call(method, params, done, subscription, key = "") {
    if (this.state === "disconnected") return done(failure.disconnected());
    if (subscription?.state === "unsubscribed") return done(failure.unsubscribed());
    this.#calls.add({ method, params, done, subscription, key });
  }

  #isReady({ subscription }) {
    return this.state === "connected" && (!subscription || subscription.state === "subscribed");
  }

  /** Write a command, unless it is too large. Returns the error. */
  #write(command) {
    const text = JSON.stringify(command);
    const size = text.length * CHARACTER_BYTES_MAX > this.#limit ? bytesIn(text) : 0;
    if (size > this.#limit) return failure.tooLarge(size, this.#limit);
    if (this.#out.push(text) === 1) queueMicrotask(() => this.#flush());
    return null;
  }

  /** Characters of the commands that go in one frame, within the hub's limit. */
  get #frameChars() { return Math.min(FRAME_CHARS_MAX, this.#limit / CHARACTER_BYTES_MAX); }

  get #limit() { return this.#bytesMax || Infinity; }

  #flush() {
    const commands = this.#out.splice(0);
    const chars = this.#frameChars;
    while (this.#socket?.readyState === 1 && commands.length) {
      let frame = commands.shift();
      while (commands.length && frame.length + commands[0].length < chars) {
        frame += `\n${commands.shift()}`;
      }
      this.#socket.send(frame);
    }
  }

  async #open() {
    const turn = ++this.#turn;
    if (this.#isRefused) {
      const { waitMs } = await (this.#diagnosis ??= diagnose(this.url));
      this.#diagnosis = null;
      if (turn !== this.#turn) return;
      if (waitMs) return this.#retry(1, "the hub takes no connection now", null, waitMs);
      if (waitMs === 0) this.#blocked = this.#isStreaming ? 0 : this.#blocked + 1;
    }
    this.#isStreaming = this.#blocked >= BLOCKED_MIN;
    if (!this.#reconnectToken && this.#lease.isMissing) {
      try {
        await this.#lease.fetch();
      } catch (error) {
        if (turn === this.#turn) this.#retry(1, "no token", ["connectToken", error, ""]);
        return;
      }
      if (turn !== this.#turn) return;
      if (this.#lease.isMissing) return this.#stop(1, "unauthorized");
    }
    let socket;
    try {
      socket = this.#socket = this.#isStreaming
        ? new StreamSocket(this.url, this.#hello(), this.#options.credentials) : new WebSocket(this.url);
    } catch (error) {
      this.#problem("transport", error, error.message);
      return this.#stop(2, error.message); // the browser never allows this address
    }
    this.#openAlarm = new Alarm(this.#options.timeout, () => {
      this.#retry(1, "connect timeout", ["transport", failure.timeout(), "no answer in time"]);
    });
    this.#isRefused = true;
    socket.onopen = () => {
      this.#isRefused = false;
      if (!this.#isStreaming) socket.send(this.#hello());
    };
    socket.onmessage = ({ data }) => {
      this.#watch();
      for (const line of data.split("\n")) {
        if (line && this.#socket === socket) this.#receive(line);
      }
    };
    socket.onclose = ({ code, reason }) => this.#closed(code, reason);
  }

  /** The connect command. */
  #hello() {
    const { name } = this.#options;
    const subs = {};
    for (const [channel, position] of this.#server) {
      if (position) subs[channel] = { recover: true, ...position };
    }
    const params = { token: this.#reconnectToken || this.#lease.token, data: this.#data, name, subs };
    // Its time limit is the open alarm, which ends with the reply.
    const id = this.#calls.expect((error, result) => this.#connected(error, result));
    return JSON.stringify({ id, connect: params });
  }

  #connected(error, result) {
    if (error?.code === CLOSED) return;
    if (error?.code === 109 && this.#reconnectToken) this.#reconnectToken = "";
    else if (error?.code === 109 && this.#lease.isRenewable) this.#lease.token = "";
    else if (error && !error.temporary) {
      this.#problem("connect", error, answered(error));
      return this.#stop(error.code, error.message);
    }
    if (error) return this.#retry(error.code, error.message, ["connect", error, answered(error)]);
    this.#openAlarm.stop();
    this.#blocked = this.#isStreaming ? BLOCKED_MIN - 1 : 0; // the next try is a WebSocket again
    this.state = "connected";
    this.#attempt = 0;
    this.#pong = Boolean(result.pong);
    this.#patienceMs = result.ping ? result.ping * 1000 + PING_DELAY_MS : 0;
    this.#watch();
    this.#lease.renewIn(result);
    this.#keepReconnectToken(result.data);
    this.#calls.remembered = result.idempotency_ttl ?? 0;
    const data = this.#keepLimit(result.data);
    if (this.#isStreaming) this.#socket.locate(result, this.#frameChars);
    // Before any listener runs, who may subscribe, publish or disconnect.
    for (const subscription of [...this.#subscriptions.values()]) subscription._start();
    this._release();
    this._emit("connected", { client: result.client, data });
    const subs = result.subs ?? {};
    for (const channel of this.#server.keys()) if (!(channel in subs)) this.#serverLeft(channel);
    for (const [channel, sub] of Object.entries(subs)) this.#serverJoined(channel, sub);
  }

  /** Take the hub's limit to a message out of the data of a connect result. */
  #keepLimit(data) {
    const { message_bytes_max: max, ...rest } = data ?? {};
    this.#bytesMax = Number.isInteger(max) ? max : 0;
    return this.#bytesMax ? rest : data;
  }

  /** Whether data of the hub's holds a token to reconnect with, which is kept. */
  #keepReconnectToken(data) {
    const { reconnect_token: token } = data ?? {};
    if (typeof token !== "string") return false;
    this.#reconnectToken = token;
    return true;
  }

  /** @internal Transmit the calls that waited for the connection, or for a subscription that is there now. */
  _release() { this.#calls.release(); }

  #receive(line) {
    let reply;
    try {
      reply = JSON.parse(line);
    } catch {
      return this.#stop(2, "bad protocol");
    }
    if (reply.id) {
      const { error, id, ...result } = reply;
      const refusal = error && new HubError(error.code, error.message, error.temporary);
      this.#calls.answer(id, refusal, Object.values(result)[0] ?? {});
    } else if (reply.push) {
      this.#push(reply.push);
    } else if (this.#pong) {
      this.#socket.send("{}");
    }
  }

  #push(push) {
    const { channel } = push;
    const subscription = this.#subscriptions.get(channel);
    if (push.message) this.#message(push.message.data);
    else if (push.refresh) this.#lease.renewIn(push.refresh);
    else if (push.disconnect) this.#closed(push.disconnect.code, push.disconnect.reason);
    else if (subscription) subscription._push(push);
    else if (push.subscribe) this.#serverJoined(channel, push.subscribe);
    else if (!this.#server.has(channel)) return;
    else if (push.unsubscribe) this.#serverLeft(channel);
    else if (push.pub) this.#serverPublication(channel, push.pub);
    else if (push.join) this._emit("join", { channel, info: clientInfo(push.join.info) });
    else if (push.leave) this._emit("leave", { channel, info: clientInfo(push.leave.info) });
  }

  #message(data) {
    if (!this.#keepReconnectToken(data)) this._emit("message", { data });
  }

  #serverJoined(channel, result) {
    if (!result.recovered) this.#server.set(channel, null);
    this._emit("subscribed", { channel, ...subscribedContext(result) });
    for (const pub of result.publications ?? []) this.#serverPublication(channel, pub);
    this.#server.set(channel, positionAfter(this.#server.get(channel), result));
  }

  #serverPublication(channel, pub) {
    if (isNews(pub, this.#server.get(channel))) this._emit("publication", publication(channel, pub));
  }

  #serverLeft(channel) {
    this.#server.delete(channel);
    this._emit("unsubscribed", { channel });
  }

  /** Anything that is heard proves the link. An alarm that is late proves nothing: the page may have slept. */
  #watch() {
    this.#pingAlarm?.stop();
    if (!this.#patienceMs) return;
    this.#pingAlarm = new Alarm(this.#patienceMs, () => this.#retry(2, "no ping"), () => this.#probe());
  }

  /** Ask whether the link still lives. */
  #probe() {
    if (this.state !== "connected" || this.#isProbing) return;
    this.#isProbing = true;
    this._call("ping", {}, (error) => {
      this.#isProbing = false;
      if (error?.code === TIMEOUT) this.#retry(2, "no ping");
    });
  }

  /** The network or the tab is back: try now instead of later, or ask whether the link still lives. */
  #wake() {
    if (this.state === "connected") this.#probe();
    else if (this.#retryTimer && !this.#isToldToWait) {
      clearTimeout(this.#retryTimer);
      this.#retryTimer = undefined;
      this.#open();
    }
  }

  #closed(code, reason) {
    const answer = `close code ${code}${reason && `: ${reason}`}`;
    if (code === 1009 || (code >= 3000 && code % 1000 >= 500)) {
      this.#problem("transport", new HubError(code, reason || answer), answer);
    } else if (this.#isRefused) this.#explain(reason);
    if (this.state === "disconnected") return; // a listener ended it
    if (code === 1009) this.#stop(3, "message size limit");
    else if (code === 3500 && this.state === "connecting" && this.#reconnectToken) {
      this.#reconnectToken = ""; // the app's token may be good all the same
      this.#retry(code, reason);
    }
    else if (code >= 3000 && code % 1000 >= 500) this.#stop(code, reason);
    else this.#retry(code < 3000 ? 1 : code, code < 3000 ? "transport closed" : reason);
  }

  /** A connection was not made. Of a WebSocket a browser does not say why: ask the hub, and tell. */
  async #explain(reason) {
    const transport = this.#transport;
    const asked = this.#diagnosis = diagnose(this.url);
    const answer = reason || (await asked).answer;
    if (this.state === "disconnected") return;
    const error = new HubError(CLOSED, `no connection to ${this.url} by ${transport}: ${answer}`, true);
    this._emit("error", { type: "transport", error, url: this.url, transport, answer });
  }

  get #transport() { return this.#isStreaming ? "http_stream" : "websocket"; }

  /** Tell of something that failed. `answer` says what came back, where something did. */
  #problem(type, error, answer = "") {
    this._emit("error", { type, error, url: this.url, transport: this.#transport, answer });
  }

  /** @internal Give up this socket, and try another one after a while. */
  _reconnect(code, reason) { this.#retry(code, reason); }

  #retry(code, reason, problem, leastMs = 0) {
    if (this.state === "disconnected") return;
    this.state = "connecting";
    this.#isToldToWait = leastMs > 0;
    const delay = leastMs + this._backoff(this.#attempt);
    const attempt = ++this.#attempt;
    this.#leave();
    this.#retryTimer = setTimeout(() => {
      this.#retryTimer = undefined;
      this.#open();
    }, delay);
    if (problem) this.#problem(...problem);
    this.#suspend(code, reason);
    if (this.state === "connecting") this._emit("connecting", { code, reason, attempt, delay });
  }

  #stop(code, reason) {
    if (this.state === "disconnected") return;
    this.state = "disconnected";
    this.#reconnectToken = "";
    this.#isRefused = false;
    this.#blocked = 0;
    this.#leave();
    for (const [target, event] of wakers()) target.removeEventListener(event, this.#onWake);
    this.#calls.end(failure.disconnected());
    this.#suspend(code, reason);
    this._emit("disconnected", { code, reason });
  }

  /** Leave the socket behind. A close handshake on a dead link takes minutes, so nothing waits for it. */
  #leave() {
    this.#turn++;
    this.#lease.stop();
    clearTimeout(this.#retryTimer);
    this.#openAlarm?.stop();
    this.#pingAlarm?.stop();
    this.#retryTimer = undefined;
    this.#patienceMs = 0;
    this.#out = [];
    const socket = this.#socket;
    this.#socket = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    this.#calls.lose();
  }

  #suspend(code, reason) {
    for (const subscription of [...this.#subscriptions.values()]) subscription._suspend(code, reason);
    for (const channel of this.#server.keys()) this._emit("subscribing", { channel });
  }

  /** @internal */
  _add(subscription) {
    const { channel } = subscription;
    if (this.#subscriptions.has(channel)) throw new Error(`subscribed to ${channel} already: unsubscribe first`);
    this.#subscriptions.set(channel, subscription);
  }

  /** @internal */
  _remove(subscription) {
    this.#subscriptions.delete(subscription.channel);
    this.#calls.end(failure.unsubscribed(), subscription);
  }

  /** @internal */
  _backoff(attempt) {
    return backoff(attempt, this.#options.minReconnectDelay, this.#options.maxReconnectDelay);
  }
}

function bytesIn(text) { return new TextEncoder().encode(text).length; }
function answered({ code, message }) { return `error ${code}: ${message}`; }

function wakers() {
  const page = globalThis.document;
  return [[globalThis, "online"], [globalThis, "offline"], [globalThis, "pageshow"], [page, "visibilitychange"],
    [page, "resume"]].filter(([target]) => target?.addEventListener);
}
