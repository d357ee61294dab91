/**
 * What the files of the client share: errors, events, times, tokens, and the shapes of a hub's messages.
 *
 * @typedef {{client: string, user: string, connInfo?: any, chanInfo?: any}} ClientInfo
 * @typedef {{channel: string, data: any, offset?: number, info?: ClientInfo, tags?: Record<string, string>,
 *   time?: number}} Publication `time` in Unix milliseconds
 * @typedef {{epoch: string, offset: number}} StreamPosition
 * @typedef {(context: {channel?: string}) => Promise<string>} GetToken throws UnauthorizedError, or gives "",
 *   where the user may not have one; any other error is tried again
 */

export const TIMER_MS_MAX = 2 ** 31 - 1; // a longer timer would fire at once
const RENEWAL_MS_MIN = 1000;
const LATE_MS = 2000;

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

/** The call was refused, since the outbox is full, or 100 other calls wait for the connection already. */
export class QueueFullError extends HubError {}

/** The call was refused, since the hub would close the connection for a message of this size. */
export class MessageTooLargeError extends HubError {}

/** The publish was in the outbox for as long as the option `outbox.maxAge` says. */
export class MessageExpiredError extends HubError {}

/** Thrown by a `getToken`: this user gets none, and the client stops. */
export class UnauthorizedError extends Error {}

const HOST_AND_PORT = /^[^/?#:]+:\d+(?:[/?#]|$)/; // such as 127.0.0.1:8000, which no URL means
const ANSWER_CHARS_MAX = 200;

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
  queueFull: (max) => new QueueFullError(20, `${max} calls wait for the connection already`, true),
  outboxFull: (max) => new QueueFullError(20, `the outbox holds ${max} publishes already (outbox.maxMessages)`, true),
  expired: (isSent) => new MessageExpiredError(
    22, isSent ? "the publish was sent, and no answer came in time (outbox.maxAge): it may have arrived"
      : "the publish was not sent in time (outbox.maxAge)", true,
  ),
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
 * @param {string | URL} url absolute, or relative to `base` @param {string} [base]
 * @throws {TypeError} it is not the address of a hub
 */
export function endpoint(url, base = globalThis.location?.href) {
  if (!(url instanceof URL) && (typeof url !== "string" || !url)) {
    throw new TypeError(`the address of the hub is missing: give one like https://hub.example, not ${url}`);
  }
  url = String(url);
  if (HOST_AND_PORT.test(url)) throw new TypeError(`${url} has no scheme: give http://${url} or https://${url}`);
  const address = new URL(url, base);
  if (!/^(http|ws)s?:$/.test(address.protocol)) {
    throw new TypeError(`${url} is not the address of a hub: give one like https://hub.example`);
  }
  const complete = /^wss?:/.test(url) && address.pathname !== "/";
  address.protocol = address.protocol.replace("http", "ws");
  address.hash = "";
  if (!complete && !address.pathname.endsWith("/connection/websocket")) {
    address.pathname = `${address.pathname.replace(/\/$/, "")}/connection/websocket`;
  }
  return address.href;
}

/**
 * Refuse unknown options: a misspelt option would be ignored.
 * @param {object} options @param {string[]} known @param {string} what they are options of
 * @throws {TypeError} with the name of the first unknown option, and the known name that is nearest to it
 */
export function checkOptions(options, known, what) {
  if (options === null || typeof options !== "object") throw new TypeError(`the options of ${what} are an object`);
  for (const name of Object.keys(options)) checkName(name, known, `${what} has no option`);
}

/**
 * The options, and the defaults of those that are not there.
 * @param {object} defaults @param {object} options @param {string} what they are options of
 * @throws {TypeError} an option that must be a number is not a number, or is below 0
 */
export function withDefaults(defaults, options, what) {
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  for (const [name, value] of given) {
    if (typeof defaults[name] === "number" && !(typeof value === "number" && value >= 0)) {
      throw new TypeError(`the option ${name} of ${what} is a number from 0 on, not ${value}`);
    }
  }
  return { ...defaults, ...Object.fromEntries(given) };
}

/** @param {string} name @param {string[]} known @param {string} fault how the error begins @throws {TypeError} */
export function checkName(name, known, fault) {
  if (known.includes(name)) return;
  const [nearest] = [...known].sort((one, other) => distance(one, name) - distance(other, name));
  throw new TypeError(`${fault} ${name}: did you mean ${nearest}? It knows ${known.join(", ")}`);
}

/** How many letters must be added, dropped or replaced to make one word the other. Case does not count. */
function distance(one, other) {
  let row = Array.from({ length: other.length + 1 }, (_, index) => index);
  for (const [line, letter] of [...one.toLowerCase()].entries()) {
    const next = [line + 1];
    for (const [index, wanted] of [...other.toLowerCase()].entries()) {
      next.push(Math.min(next[index] + 1, row[index + 1] + 1, row[index] + (letter === wanted ? 0 : 1)));
    }
    row = next;
  }
  return row.at(-1);
}

/**
 * A timer of a time limit. Timers of a frozen tab, and of a machine that sleeps, ring late; what arrived meanwhile
 * is handled first.
 */
export class Alarm {
  #timer;

  /**
   * @param {number} ms @param {() => void} ring
   * @param {() => void} [whenLate] what to do when the timer rings late, in place of waiting once more
   */
  constructor(ms, ring, whenLate) {
    const due = Date.now() + ms;
    this.#timer = setTimeout(() => {
      if (Date.now() - due < LATE_MS) ring();
      else if (whenLate) whenLate();
      else this.#timer = setTimeout(ring, ms);
    }, ms);
  }

  stop() { clearTimeout(this.#timer); }
}

const RETRY_AFTER_MS_MAX = 60_000;
const ANSWER_MS_MAX = 2000;

/**
 * What an address answers to a plain request, which a page may read where it reads nothing of a failed handshake.
 * @param {string} path relative to the WebSocket endpoint @param {string} url of the WebSocket endpoint
 * @returns {Promise<Response | null>} null for no answer
 */
async function answerOf(path, url, mode = "cors") {
  const address = new URL(path, url.replace("ws", "http"));
  try {
    const signal = AbortSignal.timeout(ANSWER_MS_MAX);
    return await fetch(address, { mode, cache: "no-store", credentials: "omit", signal });
  } catch {
    return null;
  }
}

/**
 * Why a handshake failed, as far as it can be told: a hub answers `/readyz` to pages of any origin, with 503 and
 * `Retry-After` where it takes no connection, and plain requests to its WebSocket endpoint with what is wrong.
 * @param {string} url of its WebSocket endpoint
 * @returns {Promise<{waitMs: number | null, answer: string}>} the milliseconds that it says to wait: 0 where it
 *   takes connections, null where it does not say; and what came back, in words
 */
export async function diagnose(url) {
  const reply = await answerOf("../readyz", url);
  if (!reply) {
    // A page may not read this answer, but it learns that there is one.
    const isThere = await answerOf("../readyz", url, "no-cors");
    return { waitMs: null, answer: isThere ? "a server answers, and no hub that this page may read" : "no server answers: start the hub, or correct the port" };
  }
  if (reply.status === 503) {
    const waitMs = Number(reply.headers.get("Retry-After")) * 1000;
    return {
      waitMs: Math.min(waitMs || 0, RETRY_AFTER_MS_MAX) || null, answer: "HTTP 503: the hub takes no connection now",
    };
  }
  if (reply.status === 404) return { waitMs: 0, answer: "HTTP 404: no hub lives at this path: add the path that it is installed at" };
  const refusal = await answerOf("", url);
  if (refusal?.status === 426) return { waitMs: 0, answer: "the hub answers HTTP, but no WebSocket passed" };
  if (!refusal?.status) return { waitMs: 0, answer: "the hub is there, and refused the handshake" };
  const text = refusal.text ? (await refusal.text().catch(() => "")).trim().slice(0, ANSWER_CHARS_MAX) : "";
  return { waitMs: 0, answer: `HTTP ${refusal.status}${text && `: ${text}`}` };
}

/** Events by name. */
export class Emitter {
  #listeners = new Map();
  #known;

  /** @param {string[]} known the names of its events */
  constructor(known) { this.#known = known; }

  /** @param {string} event @param {(context: any) => void} listener */
  on(event, listener) {
    checkName(event, this.#known, "there is no event");
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
