/**
 * A browser's client of a hub: one WebSocket, its subscriptions, and the way back after a broken link.
 *
 *     import { Hub } from "/static/hub.js";
 *     const hub = new Hub("https://hub.example");
 *     hub.subscribe("news").on("publication", ({ data }) => console.log(data));
 *     hub.connect();
 *
 * Names, states and codes are those of the Centrifuge SDKs.
 *
 * @typedef {{client: string, user: string, connInfo?: any, chanInfo?: any}} ClientInfo
 * @typedef {{channel: string, data: any, offset?: number, info?: ClientInfo, tags?: Record<string, string>,
 *   time?: number}} Publication `time` in Unix milliseconds
 * @typedef {{epoch: string, offset: number}} StreamPosition
 * @typedef {(context: {channel?: string}) => Promise<string>} GetToken throws UnauthorizedError, or gives "",
 *   where the user may not have one; any other error is tried again
 */

const QUEUE_MAX = 100;
const PING_DELAY_MS = 10_000;
const TIMER_MS_MAX = 2 ** 31 - 1; // a longer timer would fire at once
const FRAME_CHARS_MAX = 16_000; // at most three bytes each, so well under a hub's limit of 64 KiB

/** What failed: a hub's error (`code` from 100), or the client's own (below 100). */
export class HubError extends Error {
  /** @param {number} code @param {string} message @param {boolean} [temporary] whether to try again makes sense */
  constructor(code, message, temporary = false) {
    super(message);
    this.name = new.target.name;
    this.code = code;
    this.temporary = temporary;
  }
}

/** The call was refused, since 100 others wait for the connection already. */
export class QueueFullError extends HubError {}

/** Thrown by a `getToken`: this user gets none, and the client stops. */
export class UnauthorizedError extends Error {}

const TIMEOUT = 1;
const CLOSED = 2;
const failure = {
  timeout: () => new HubError(TIMEOUT, "timeout", true),
  closed: () => new HubError(CLOSED, "transport closed", true),
  disconnected: () => new HubError(3, "client disconnected"),
  unsubscribed: () => new HubError(7, "subscription unsubscribed"),
  queueFull: () => new QueueFullError(20, `${QUEUE_MAX} calls wait for the connection already`, true),
};

/**
 * The wait before a try, in milliseconds, with full jitter: the cap comes before the jitter, so that clients
 * never fall into step.
 * @param {number} attempt from 0 @param {number} min @param {number} max @param {() => number} [random]
 */
export function backoff(attempt, min, max, random = Math.random) {
  return Math.round(min + random() * Math.min(max - min, min * 2 ** Math.min(attempt, 30)));
}

/**
 * The WebSocket's address: a ws: URL with a path is one, anything else is where the hub lives.
 * @param {string} url absolute, or relative to `base` @param {string} [base]
 */
export function endpoint(url, base = globalThis.location?.href) {
  const address = new URL(url, base);
  const complete = /^wss?:/.test(url) && address.pathname !== "/";
  address.protocol = address.protocol.replace("http", "ws");
  address.hash = "";
  if (!complete && !address.pathname.endsWith("/connection/websocket")) {
    address.pathname = `${address.pathname.replace(/\/$/, "")}/connection/websocket`;
  }
  return address.href;
}

class Emitter {
  #listeners = new Map();

  /** @param {string} event @param {(context: any) => void} listener */
  on(event, listener) {
    this.#listeners.set(event, [...(this.#listeners.get(event) ?? []), listener]);
    return this;
  }

  /** @param {string} event @param {(context: any) => void} listener */
  off(event, listener) {
    this.#listeners.set(event, (this.#listeners.get(event) ?? []).filter((other) => other !== listener));
    return this;
  }

  /** @internal */
  _emit(event, context) {
    for (const listener of this.#listeners.get(event) ?? []) {
      try {
        listener(context);
      } catch (error) {
        queueMicrotask(() => { throw error; }); // a listener's fault is not the connection's
      }
    }
  }
}

/**
 * The connection. Events: `connecting` {code, reason, attempt, delay}, with the milliseconds to the next try;
 * `connected` {client, data}; `disconnected` {code, reason}, after which only `connect` brings it back; `error`
 * {type, error}; `message` {data}; and for server-side subscriptions `subscribed`, `subscribing`,
 * `unsubscribed`, `publication`, `join`, `leave`, each with its `channel`.
 */
export class Hub extends Emitter {
  /** @type {"disconnected" | "connecting" | "connected"} */
  state = "disconnected";
  #options;
  #token;
  #data;
  #socket = null;
  #turn = 0; // grows with each attempt and end, so that what was awaited for an older one is dropped
  #attempt = 0;
  #id = 0;
  #pong = false;
  #patienceMs = 0;
  #retryTimer;
  #openTimer;
  #pingTimer;
  #refreshTimer;
  #out = []; // commands of this tick, to go in one frame
  #queue = []; // calls that wait for the connection, or for their subscription
  #pending = new Map(); // calls that wait for their reply, by id
  #subscriptions = new Map();
  #server = new Map(); // server-side subscriptions: channel to position, or null
  #onWake = () => globalThis.document?.visibilityState !== "hidden" && this.#wake();

  /**
   * @param {string} url the hub's address, or its WebSocket endpoint's
   * @param {{token?: string, getToken?: GetToken, data?: any, name?: string, minReconnectDelay?: number,
   *   maxReconnectDelay?: number, timeout?: number}} [options] times in milliseconds
   */
  constructor(url, options = {}) {
    super();
    this.url = endpoint(url);
    this.#options = {
      name: "hub.js", minReconnectDelay: 500, maxReconnectDelay: 20_000, timeout: 5000, ...options,
    };
    this.#token = options.token ?? "";
    this.#data = options.data;
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
  setToken(token) { this.#token = token; }

  /** @param {any} data sent from the next connect on */
  setData(data) { this.#data = data; }

  /**
   * Subscribe to a channel now and after each reconnect, until its `unsubscribe`.
   * @param {string} channel
   * @param {{token?: string, getToken?: GetToken, data?: any, recoverable?: boolean, positioned?: boolean,
   *   joinLeave?: boolean, since?: StreamPosition}} [options]
   */
  subscribe(channel, options) {
    const subscription = new Subscription(this, channel, options);
    subscription.subscribe();
    return subscription;
  }

  /** @param {string} channel @param {any} data */
  async publish(channel, data) { await this._request("publish", { channel, data }); }

  /** Call a method of the app. @param {string} method @param {any} [data] @returns {Promise<{data: any}>} */
  async rpc(method, data) { return { data: (await this._request("rpc", { method, data })).data }; }

  /** Send a message that gets no reply. @param {any} data */
  async send(data) { await this._request("send", { data }); }

  /** @internal As a promise. */
  _request(method, params, subscription) {
    return new Promise((resolve, reject) => {
      this._call(method, params, (error, result) => (error ? reject(error) : resolve(result)), subscription);
    });
  }

  /** @internal `done` runs in the order of the replies and pushes, which a promise would not keep. */
  _call(method, params, done, subscription) {
    if (this.state === "disconnected") return done(failure.disconnected());
    if (subscription?.state === "unsubscribed") return done(failure.unsubscribed());
    const call = { method, params, done, subscription };
    const ready = this.#isReady(call);
    if (!ready && this.#queue.length >= QUEUE_MAX) return done(failure.queueFull());
    call.timer = setTimeout(() => this.#drop(call, failure.timeout()), this.#options.timeout);
    if (ready) this.#transmit(call);
    else this.#queue.push(call);
  }

  #isReady({ subscription }) {
    return this.state === "connected" && (!subscription || subscription.state === "subscribed");
  }

  #transmit(call) {
    if (call.method === "send") {
      this.#write({ send: call.params });
      return this.#drop(call, null);
    }
    call.id = ++this.#id;
    this.#pending.set(call.id, call);
    this.#write({ id: call.id, [call.method]: call.params });
  }

  /** End a call, with an error or with a result. */
  #drop(call, error, result) {
    clearTimeout(call.timer);
    this.#pending.delete(call.id);
    this.#queue = this.#queue.filter((other) => other !== call);
    call.done(error, result);
  }

  #write(command) {
    if (this.#out.push(JSON.stringify(command)) === 1) queueMicrotask(() => this.#flush());
  }

  #flush() {
    const commands = this.#out.splice(0);
    while (this.#socket?.readyState === 1 && commands.length) {
      let frame = commands.shift();
      while (commands.length && frame.length + commands[0].length < FRAME_CHARS_MAX) {
        frame += `\n${commands.shift()}`;
      }
      this.#socket.send(frame);
    }
  }

  async #open() {
    const turn = ++this.#turn;
    const { timeout, getToken } = this.#options;
    if (!this.#token && getToken) {
      const [token, error] = await fetchToken(getToken, {});
      if (turn !== this.#turn) return;
      if (error) return this.#retry(1, "no token", { type: "connectToken", error });
      if (!token) return this.#stop(1, "unauthorized");
      this.#token = token;
    }
    const socket = this.#socket = new WebSocket(this.url);
    this.#openTimer = setTimeout(() => this.#retry(1, "connect timeout", failed("transport", "timeout")), timeout);
    socket.onopen = () => this.#greet();
    socket.onmessage = ({ data }) => {
      this.#watch();
      for (const line of data.split("\n")) {
        if (line && this.#socket === socket) this.#receive(line);
      }
    };
    socket.onclose = ({ code, reason }) => this.#closed(code, reason);
  }

  #greet() {
    const { name } = this.#options;
    const subs = {};
    for (const [channel, position] of this.#server) if (position) subs[channel] = { recover: true, ...position };
    const params = { token: this.#token || undefined, data: this.#data, name, subs };
    const id = ++this.#id;
    // Its time limit is the open timer, which ends with the reply.
    this.#pending.set(id, { id, done: (error, result) => this.#connected(error, result) });
    this.#socket.send(JSON.stringify({ id, connect: params }));
  }

  #connected(error, result) {
    if (error?.code === CLOSED) return;
    if (error?.code === 109 && this.#options.getToken) this.#token = "";
    else if (error && !error.temporary) return this.#stop(error.code, error.message);
    if (error) return this.#retry(error.code, error.message, { type: "connect", error });
    clearTimeout(this.#openTimer);
    this.state = "connected";
    this.#attempt = 0;
    this.#pong = Boolean(result.pong);
    this.#patienceMs = result.ping ? result.ping * 1000 + PING_DELAY_MS : 0;
    this.#watch();
    this.#refreshIn(result);
    this._emit("connected", { client: result.client, data: result.data });
    if (this.state !== "connected") return; // a listener closed it
    const subs = result.subs ?? {};
    for (const channel of this.#server.keys()) if (!(channel in subs)) this.#serverLeft(channel);
    for (const [channel, sub] of Object.entries(subs)) this.#serverJoined(channel, sub);
    for (const subscription of this.#subscriptions.values()) subscription._start();
    this._release();
  }

  /** @internal Transmit the calls that waited for the connection, or for a subscription that is there now. */
  _release() {
    const ready = this.#queue.filter((call) => this.#isReady(call));
    this.#queue = this.#queue.filter((call) => !ready.includes(call));
    for (const call of ready) this.#transmit(call);
  }

  #receive(line) {
    let reply;
    try {
      reply = JSON.parse(line);
    } catch {
      return this.#stop(2, "bad protocol");
    }
    if (reply.id) {
      const { error, id, ...result } = reply;
      const call = this.#pending.get(id);
      if (call) this.#drop(call, error && new HubError(error.code, error.message, error.temporary), Object.values(result)[0] ?? {});
    } else if (reply.push) {
      this.#push(reply.push);
    } else if (this.#pong) {
      this.#socket.send("{}");
    }
  }

  #push(push) {
    const { channel } = push;
    const subscription = this.#subscriptions.get(channel);
    if (push.message) this._emit("message", { data: push.message.data });
    else if (push.refresh) this.#refreshIn(push.refresh);
    else if (push.disconnect) this.#closed(push.disconnect.code, push.disconnect.reason);
    else if (subscription) subscription._push(push);
    else if (push.subscribe) this.#serverJoined(channel, push.subscribe);
    else if (!this.#server.has(channel)) return;
    else if (push.unsubscribe) this.#serverLeft(channel);
    else if (push.pub) this.#serverPublication(channel, push.pub);
    else if (push.join) this._emit("join", { channel, info: clientInfo(push.join.info) });
    else if (push.leave) this._emit("leave", { channel, info: clientInfo(push.leave.info) });
  }

  #serverJoined(channel, result) {
    this.#server.set(channel, positionOf(result));
    this._emit("subscribed", { channel, ...subscribedContext(result) });
    for (const pub of result.publications ?? []) this.#serverPublication(channel, pub);
  }

  #serverPublication(channel, pub) {
    const position = this.#server.get(channel);
    if (position && pub.offset) position.offset = pub.offset;
    this._emit("publication", publication(channel, pub));
  }

  #serverLeft(channel) {
    this.#server.delete(channel);
    this._emit("unsubscribed", { channel });
  }

  /** Anything that is heard proves the link. Timers sleep in hidden tabs, and the hub's ping wakes them. */
  #watch() {
    clearTimeout(this.#pingTimer);
    if (this.#patienceMs) this.#pingTimer = setTimeout(() => this.#retry(2, "no ping"), this.#patienceMs);
  }

  /** The network or the tab is back: try now instead of later, or ask whether the link still lives. */
  #wake() {
    if (this.state === "connected") {
      this._call("ping", {}, (error) => error?.code === TIMEOUT && this.#retry(2, "no ping"));
    } else if (this.#retryTimer) {
      clearTimeout(this.#retryTimer);
      this.#retryTimer = undefined;
      this.#open();
    }
  }

  #refreshIn({ expires, ttl = 0 }) {
    clearTimeout(this.#refreshTimer);
    if (expires && this.#options.getToken) this.#refreshTimer = setTimeout(() => this.#refresh(), renewal(ttl));
  }

  async #refresh() {
    const turn = this.#turn;
    const later = (error) => {
      this._emit("error", { type: "refreshToken", error });
      if (turn === this.#turn) this.#refreshTimer = setTimeout(() => this.#refresh(), backoff(0, 5000, 10_000));
    };
    const [token, error] = await fetchToken(this.#options.getToken, {});
    if (turn !== this.#turn) return;
    if (error) return later(error);
    if (!token) return this.#stop(1, "unauthorized");
    this.#token = token;
    this._call("refresh", { token }, (refused, result) => {
      if (turn !== this.#turn) return;
      if (!refused) this.#refreshIn(result);
      else if (refused.temporary) later(refused);
      else this.#stop(refused.code, refused.message);
    });
  }

  #closed(code, reason) {
    if (code === 1009) this.#stop(3, "message size limit");
    else if (code >= 3000 && code < 5000 && code % 1000 >= 500) this.#stop(code, reason);
    else this.#retry(code < 3000 ? 1 : code, code < 3000 ? "transport closed" : reason);
  }

  /** @internal Give up this socket, and try another one after a while. */
  _reconnect(code, reason) { this.#retry(code, reason); }

  #retry(code, reason, problem) {
    if (this.state === "disconnected") return;
    this.state = "connecting";
    const delay = backoff(this.#attempt, this.#options.minReconnectDelay, this.#options.maxReconnectDelay);
    const attempt = ++this.#attempt;
    this.#leave();
    this.#retryTimer = setTimeout(() => {
      this.#retryTimer = undefined;
      this.#open();
    }, delay);
    if (problem) this._emit("error", problem);
    this.#suspend(code, reason);
    if (this.state === "connecting") this._emit("connecting", { code, reason, attempt, delay });
  }

  #stop(code, reason) {
    if (this.state === "disconnected") return;
    this.state = "disconnected";
    this.#leave();
    for (const [target, event] of wakers()) target.removeEventListener(event, this.#onWake);
    for (const call of [...this.#queue]) this.#drop(call, failure.disconnected());
    this.#suspend(code, reason);
    this._emit("disconnected", { code, reason });
  }

  /** Leave the socket behind. A close handshake on a dead link takes minutes, so nothing waits for it. */
  #leave() {
    this.#turn++;
    for (const timer of [this.#retryTimer, this.#openTimer, this.#pingTimer, this.#refreshTimer]) clearTimeout(timer);
    this.#retryTimer = undefined;
    this.#patienceMs = 0;
    this.#out = [];
    const socket = this.#socket;
    this.#socket = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    for (const call of [...this.#pending.values()]) this.#drop(call, failure.closed());
  }

  #suspend(code, reason) {
    for (const subscription of [...this.#subscriptions.values()]) subscription._suspend(code, reason);
    for (const channel of this.#server.keys()) this._emit("subscribing", { channel });
  }

  /** @internal */
  _add(subscription) {
    if (this.#subscriptions.has(subscription.channel)) throw new Error(`already subscribed to ${subscription.channel}`);
    this.#subscriptions.set(subscription.channel, subscription);
  }

  /** @internal */
  _remove(subscription) {
    this.#subscriptions.delete(subscription.channel);
    for (const call of this.#queue.filter((other) => other.subscription === subscription)) {
      this.#drop(call, failure.unsubscribed());
    }
  }

  /** @internal */
  _backoff(attempt) {
    return backoff(attempt, this.#options.minReconnectDelay, this.#options.maxReconnectDelay);
  }
}

/**
 * A subscription to one channel. Events: `subscribing` {code, reason}; `subscribed` {wasRecovering, recovered,
 * recoverable, positioned, data, streamPosition}, before the publications that it recovered; `unsubscribed`
 * {code, reason}; `publication`; `join` and `leave` {info}; `error` {type, error}, after which it tries again.
 * Each has its `channel`.
 */
export class Subscription extends Emitter {
  /** @type {"unsubscribed" | "subscribing" | "subscribed"} */
  state = "unsubscribed";
  #hub;
  #options;
  #token;
  #position;
  #turn = 0;
  #attempt = 0;
  #timer;

  /** @param {Hub} hub @param {string} channel made by `Hub.subscribe` */
  constructor(hub, channel, options = {}) {
    super();
    this.channel = channel;
    this.#hub = hub;
    this.#options = options;
    this.#token = options.token ?? "";
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
    const { publications = [], epoch = "", offset = 0 } = await this.#request("history", { limit, since, reverse });
    return { publications: publications.map((pub) => publication(this.channel, pub)), epoch, offset };
  }

  /** @returns {Promise<{clients: Record<string, ClientInfo>}>} */
  async presence() {
    const { presence = {} } = await this.#request("presence");
    return { clients: Object.fromEntries(Object.entries(presence).map(([id, info]) => [id, clientInfo(info)])) };
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
    if (this.state !== "subscribing") return;
    const turn = ++this.#turn;
    const { getToken, data, recoverable, positioned, joinLeave } = this.#options;
    if (!this.#token && getToken) {
      const [token, error] = await fetchToken(getToken, { channel: this.channel });
      if (turn !== this.#turn) return;
      if (error) return this.#retry("subscribeToken", error);
      if (!token) return this.#end(1, "unauthorized");
      this.#token = token;
    }
    const recovery = this.#position && { recover: true, ...this.#position };
    const params = {
      channel: this.channel, token: this.#token || undefined, data, recoverable, positioned, join_leave: joinLeave, ...recovery,
    };
    this.#hub._call("subscribe", params, (error, result) => {
      if (turn === this.#turn && error?.code !== CLOSED) this.#answered(error, result);
    });
  }

  #answered(error, result) {
    if (!error) this.#subscribed(result);
    else if (error.code === TIMEOUT) this.#hub._reconnect(3, "subscribe timeout");
    else if (error.code === 109 && this.#options.getToken) {
      this.#token = "";
      this.#retry("subscribe", error);
    } else if (error.temporary) this.#retry("subscribe", error);
    else this.#end(error.code, error.message);
  }

  #subscribed(result) {
    const turn = ++this.#turn;
    const seen = result.recovered ? this.#position : null;
    this.state = "subscribed";
    this.#attempt = 0;
    this.#position = positionOf(result);
    this.#refreshIn(result);
    this._emit("subscribed", { channel: this.channel, ...subscribedContext(result) });
    for (const pub of result.publications ?? []) {
      if (turn === this.#turn && !(pub.offset <= seen?.offset)) this._emit("publication", publication(this.channel, pub));
    }
    if (turn === this.#turn) this.#hub._release();
  }

  #retry(type, error) {
    this._emit("error", { channel: this.channel, type, error });
    if (this.state !== "subscribing") return;
    this.#timer = setTimeout(() => this.#hub.state === "connected" && this._start(), this.#hub._backoff(this.#attempt++));
  }

  /** @internal */
  _push({ pub, join, leave, unsubscribe }) {
    const { channel } = this;
    if (this.state !== "subscribed") return;
    if (join) this._emit("join", { channel, info: clientInfo(join.info) });
    else if (leave) this._emit("leave", { channel, info: clientInfo(leave.info) });
    else if (unsubscribe) this.#unsubscribed(unsubscribe);
    else if (pub) {
      if (this.#position && pub.offset) {
        if (pub.offset <= this.#position.offset) return;
        this.#position.offset = pub.offset;
      }
      this._emit("publication", publication(channel, pub));
    }
  }

  #unsubscribed({ code = 0, reason = "" }) {
    if (code < 2500) return this.#end(code, reason);
    this._suspend(code, reason);
    this._start();
  }

  /** @internal The connection is gone, or the hub wants this to begin again. */
  _suspend(code, reason) {
    if (this.state === "subscribed") this.#set("subscribing", code, reason);
    this.#turn++;
    clearTimeout(this.#timer);
  }

  #refreshIn({ expires, ttl = 0 }) {
    clearTimeout(this.#timer);
    if (expires && this.#options.getToken) this.#timer = setTimeout(() => this.#refresh(), renewal(ttl));
  }

  async #refresh() {
    const turn = this.#turn;
    const { channel } = this;
    const later = (error) => {
      this._emit("error", { channel, type: "refreshToken", error });
      if (turn === this.#turn) this.#timer = setTimeout(() => this.#refresh(), backoff(0, 5000, 10_000));
    };
    const [token, error] = await fetchToken(this.#options.getToken, { channel });
    if (turn !== this.#turn) return;
    if (error) return later(error);
    if (!token) {
      this.#leave();
      return this.#end(1, "unauthorized");
    }
    this.#token = token;
    this.#hub._call("sub_refresh", { channel, token }, (refused, result) => {
      if (turn !== this.#turn) return;
      if (!refused) this.#refreshIn(result);
      else if (refused.temporary) later(refused);
      else {
        this.#leave();
        this.#end(refused.code, refused.message);
      }
    });
  }
}

/** A token, or "" for a refusal, or what failed. */
async function fetchToken(getToken, context) {
  try {
    return [await getToken(context) || "", null];
  } catch (error) {
    return error instanceof UnauthorizedError ? ["", null] : [null, error];
  }
}

/** When to renew what lives for `ttl` seconds: a tenth before its end. */
function renewal(ttl) { return Math.min(ttl * 900, TIMER_MS_MAX); }

function failed(type, kind) { return { type, error: failure[kind]() }; }

function wakers() {
  return [[globalThis, "online"], [globalThis, "pageshow"], [globalThis.document, "visibilitychange"]]
    .filter(([target]) => target?.addEventListener);
}

function positionOf({ recoverable, positioned, epoch = "", offset = 0 }) {
  return recoverable || positioned ? { epoch, offset } : null;
}

function subscribedContext(result) {
  const { recoverable = false, positioned = false, recovered = false, was_recovering: wasRecovering = false } = result;
  return { recoverable, positioned, recovered, wasRecovering, data: result.data, streamPosition: positionOf(result) ?? undefined };
}

/** @returns {ClientInfo} */
function clientInfo({ client = "", user = "", conn_info: connInfo, chan_info: chanInfo }) {
  return { client, user, connInfo, chanInfo };
}

/** @returns {Publication} */
function publication(channel, { data, info, offset, tags, time, channel: own }) {
  return { channel: own || channel, data, info: info && clientInfo(info), offset, tags, time };
}
