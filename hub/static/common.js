/**
 * What `hub.js` and `subscription.js` share: errors, events, times, tokens, and the shapes of a hub's messages.
 *
 * @typedef {{client: string, user: string, connInfo?: any, chanInfo?: any}} ClientInfo
 * @typedef {{channel: string, data: any, offset?: number, info?: ClientInfo, tags?: Record<string, string>,
 *   time?: number}} Publication `time` in Unix milliseconds
 * @typedef {{epoch: string, offset: number}} StreamPosition
 * @typedef {(context: {channel?: string}) => Promise<string>} GetToken throws UnauthorizedError, or gives "",
 *   where the user may not have one; any other error is tried again
 */

const TIMER_MS_MAX = 2 ** 31 - 1; // a longer timer would fire at once
const RENEWAL_MS_MIN = 1000;

/** What failed: a hub's error (`code` from 100), or the client's own (below 100). */
export class HubError extends Error {
  /** @param {number} code @param {string} message @param {boolean} [temporary] whether to try again */
  constructor(code, message, temporary = false) {
    super(message);
    this.name = new.target.name;
    this.code = code;
    this.temporary = temporary;
  }
}

/** The call was refused, since 100 others wait for the connection already. */
export class QueueFullError extends HubError {}

/** The call was refused, since the hub would close the connection for a message of this size. */
export class MessageTooLargeError extends HubError {}

/** Thrown by a `getToken`: this user gets none, and the client stops. */
export class UnauthorizedError extends Error {}

export const QUEUE_MAX = 100;
export const TIMEOUT = 1;
export const CLOSED = 2;
export const failure = {
  timeout: () => new HubError(TIMEOUT, "timeout", true),
  closed: () => new HubError(CLOSED, "transport closed", true),
  disconnected: () => new HubError(3, "client disconnected"),
  unsubscribed: () => new HubError(7, "subscription unsubscribed"),
  tooLarge: (size, max) => new MessageTooLargeError(
    21, `the command has ${size} bytes, and the hub takes ${max} (client.message_bytes_max)`,
  ),
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

const RETRY_AFTER_MS_MAX = 60_000;
const ANSWER_MS_MAX = 2000;

/**
 * How long a hub says to wait for, in milliseconds. It answers a handshake that it refuses with 503 and
 * `Retry-After`, of which a page sees nothing, and `/readyz` in the same way.
 * @param {string} url of its WebSocket endpoint
 * @returns {Promise<number | null>} 0 where it takes connections, null where it does not say
 */
export async function refusalMs(url) {
  const address = new URL("../readyz", url.replace("ws", "http"));
  try {
    const reply = await fetch(address, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS_MAX) });
    if (reply.status !== 503) return 0;
    const waitMs = Number(reply.headers.get("Retry-After")) * 1000;
    return Math.min(waitMs || 0, RETRY_AFTER_MS_MAX) || null;
  } catch {
    return null; // no network, or no such address: the socket will tell
  }
}

/** Events by name. */
export class Emitter {
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

/** The token of a connection or a subscription: fetched where it is missing, renewed before its end. */
export class Lease {
  #token;
  #getToken;
  #context;
  #owner;
  #timer;
  #turn = 0;

  /**
   * @param {{token?: string, getToken?: GetToken}} options
   * @param {object} context what `getToken` is told
   * @param {{present(token: string, done: (error?: HubError, result?: any) => void): void,
   *   problem(error: Error): void, refused(code: number, reason: string): void}} owner what a renewal needs
   */
  constructor({ token = "", getToken }, context, owner) {
    this.#token = token;
    this.#getToken = getToken;
    this.#context = context;
    this.#owner = owner;
  }

  get token() { return this.#token || undefined; }
  set token(token) { this.#token = token; }
  get isRenewable() { return Boolean(this.#getToken); }
  get isMissing() { return !this.#token && this.isRenewable; }

  /** Fetch a token: "" where it is refused. Raises what made `getToken` fail otherwise. */
  async fetch() {
    try {
      this.#token = await this.#getToken(this.#context) || "";
    } catch (error) {
      if (!(error instanceof UnauthorizedError)) throw error;
      this.#token = "";
    }
    return this.#token;
  }

  /** Renew a tenth before the end. @param {{expires?: boolean, ttl?: number}} result ttl in seconds */
  renewIn({ expires, ttl = 0 }) {
    this.stop();
    if (expires && this.isRenewable) this.#renewAfter(Math.max(ttl * 900, RENEWAL_MS_MIN));
  }

  stop() {
    this.#turn++;
    clearTimeout(this.#timer);
  }

  #renewAfter(ms) {
    this.#timer = setTimeout(() => this.#renew(), Math.min(ms, TIMER_MS_MAX));
  }

  async #renew() {
    const turn = this.#turn;
    const failed = (error) => {
      if (turn !== this.#turn) return;
      this.#renewAfter(backoff(0, 5000, 10_000));
      this.#owner.problem(error);
    };
    try {
      await this.fetch();
    } catch (error) {
      return failed(error);
    }
    if (turn !== this.#turn) return;
    if (!this.#token) return this.#owner.refused(1, "unauthorized");
    this.#owner.present(this.#token, (error, result) => {
      if (turn !== this.#turn) return;
      if (!error) this.renewIn(result);
      else if (error.temporary) failed(error);
      else this.#owner.refused(error.code, error.message);
    });
  }
}

/** @returns {StreamPosition | null} */
export function positionOf({ recoverable, positioned, epoch = "", offset = 0 }) {
  return recoverable || positioned ? { epoch, offset } : null;
}

/** The position once a result's publications have moved it on from where the client was, or null for anew. */
export function positionAfter(moved, result) {
  const position = positionOf(result);
  if (position && moved) position.offset = Math.max(position.offset, moved.offset);
  return position;
}

export function subscribedContext(result) {
  return {
    recoverable: Boolean(result.recoverable),
    positioned: Boolean(result.positioned),
    wasRecovering: Boolean(result.was_recovering),
    recovered: Boolean(result.recovered),
    data: result.data,
    streamPosition: positionOf(result) ?? undefined,
  };
}

/** @returns {ClientInfo} */
export function clientInfo({ client = "", user = "", conn_info: connInfo, chan_info: chanInfo }) {
  return { client, user, connInfo, chanInfo };
}

/** Whether a publication is past the position, which moves on with it. */
export function isNews(pub, position) {
  if (!position || !pub.offset) return true;
  if (pub.offset <= position.offset) return false;
  position.offset = pub.offset;
  return true;
}

/** @returns {Publication} */
export function publication(channel, { data, info, offset, tags, time, channel: own }) {
  return { channel: own || channel, data, info: info && clientInfo(info), offset, tags, time };
}
