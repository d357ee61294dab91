/** The calls of a connection of `hub.js`, and the outbox: publishes that are kept until the hub has answered them. */

import { Alarm, failure, TIMER_MS_MAX } from "./common.js";

const WAITING_MAX = 100; // calls other than publishes that wait for the connection
const REPEAT_MARGIN_MS = 30_000; // no repeat in the last 30 s before the hub forgets the key

/**
 * @typedef {object} Call
 * @property {string} method @property {any} params
 * @property {(error?: import("./common.js").HubError | null, result?: any) => void} done runs in the order of the
 *   replies and pushes, which a promise would not keep
 * @property {any} [subscription] that it waits for
 * @property {string} [key] of a publish: its idempotency key, or "" for a key that is made here
 */

export class Calls {
  #waiting = []; // calls that wait for the connection, or for their subscription
  #pending = new Map(); // calls that wait for their reply, by id
  #id = 0;
  #count = 0;
  #prefix = randomText();
  #timeout;
  #outbox;
  #link;
  #rememberedMs = 0;

  /**
   * @param {number} timeout milliseconds that a reply may take
   * @param {{maxMessages: number, maxAge: number}} outbox publishes that it holds, and for how many milliseconds
   * @param {{isReady(call: Call): boolean, write(command: object): Error | null, probe(): void}} link
   */
  constructor(timeout, outbox, link) {
    this.#timeout = timeout;
    this.#outbox = outbox;
    this.#link = link;
  }

  /** @param {number} seconds that the hub remembers a key, as its connect result says; 0 where it knows none */
  set remembered(seconds) { this.#rememberedMs = Math.max(seconds * 1000 - REPEAT_MARGIN_MS, 0); }

  /** The id of a command whose reply goes to `done`, without a time limit. */
  expect(done) {
    const id = ++this.#id;
    this.#pending.set(id, { id, done });
    return id;
  }

  /** Transmit a call now, or when its connection and its subscription are ready. @param {Call} call */
  add(call) {
    call.isKept = call.method === "publish" && this.#outbox.maxMessages > 0;
    if (call.isKept) call.key ||= `${this.#prefix}-${(++this.#count).toString(36)}`;
    const isReady = this.#link.isReady(call);
    if (!isReady && this.#waiting.filter(call.isKept ? isKept : isOther).length >= this.#most(call)) {
      return call.done(call.isKept ? failure.outboxFull(this.#outbox.maxMessages) : failure.queueFull(WAITING_MAX));
    }
    if (call.isKept) {
      call.deadline = Date.now() + this.#outbox.maxAge;
      this.#expireLater(call);
    } else call.alarm = new Alarm(this.#timeout, () => this.#drop(call, failure.timeout()));
    if (isReady) this.#transmit(call);
    else this.#waiting.push(call);
  }

  #most({ isKept }) { return isKept ? this.#outbox.maxMessages : WAITING_MAX; }

  /** Transmit the waiting calls whose connection and subscription are ready. */
  release() {
    const ready = this.#waiting.filter((call) => this.#link.isReady(call));
    this.#waiting = this.#waiting.filter((call) => !ready.includes(call));
    for (const call of ready) this.#transmit(call);
  }

  /** The hub answered. */
  answer(id, error, result) {
    const call = this.#pending.get(id);
    if (call) this.#drop(call, error, result);
  }

  /** The link broke: publishes that can be repeated wait again, ahead of the others. All other calls fail. */
  lose() {
    const lost = [...this.#pending.values()];
    this.#pending.clear();
    const room = this.#outbox.maxMessages - this.#waiting.filter(isKept).length;
    const again = lost.filter(isRepeatable).slice(0, Math.max(room, 0));
    for (const call of again) call.alarm.stop();
    this.#waiting.unshift(...again);
    for (const call of lost) if (!again.includes(call)) this.#drop(call, failure.closed());
  }

  /** End the calls that wait for this subscription, or all. */
  end(error, subscription) {
    const ended = this.#waiting.filter((call) => !subscription || call.subscription === subscription);
    for (const call of ended) this.#drop(call, error);
  }

  #transmit(call) {
    if (call.method === "send") return this.#drop(call, this.#link.write({ send: call.params }));
    if (call.deadline <= Date.now()) return this.#drop(call, failure.expired(call.isSent));
    if (call.isSent && !this.#rememberedMs) return this.#drop(call, failure.closed()); // this hub would send it twice
    const params = call.key && this.#rememberedMs ? { ...call.params, idempotency_key: call.key } : call.params;
    call.id = ++this.#id;
    this.#pending.set(call.id, call);
    const error = this.#link.write({ id: call.id, [call.method]: params });
    if (error) return this.#drop(call, error);
    if (call.isKept) this.#sent(call);
  }

  #sent(call) {
    // The reply may take its time, but a link that is dead must not hold it up.
    call.alarm = new Alarm(this.#timeout, () => this.#link.probe());
    if (!call.isSent && this.#rememberedMs) {
      call.isRepeatable = true;
      call.deadline = Math.min(call.deadline, Date.now() + this.#rememberedMs);
      this.#expireLater(call);
    }
    call.isSent = true;
  }

  #expireLater(call) {
    clearTimeout(call.expiry);
    const ms = Math.min(call.deadline - Date.now(), TIMER_MS_MAX);
    call.expiry = setTimeout(() => this.#drop(call, failure.expired(call.isSent)), ms);
  }

  /** End a call, with an error or with a result. */
  #drop(call, error, result) {
    call.alarm?.stop();
    clearTimeout(call.expiry);
    this.#pending.delete(call.id);
    this.#waiting = this.#waiting.filter((other) => other !== call);
    call.done(error, result);
  }
}

function isKept(call) { return call.isKept; }
function isOther(call) { return !call.isKept; }
function isRepeatable(call) { return call.isRepeatable && call.subscription?.state !== "unsubscribed"; }

function randomText() {
  // crypto.randomUUID is missing where a page came over plain HTTP from another machine.
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
