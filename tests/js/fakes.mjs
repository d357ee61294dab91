/** What the tests of the browser client hold the other end of: sockets, a page, a clock, and the answers to `fetch`. */

import { beforeEach, mock } from "node:test";

import { Hub } from "../../hub/static/hub.js";

export const URL = "ws://hub.test/connection/websocket";

/** `ready`: what the hub's /readyz answers, or an error; `asked`: the addresses that were fetched. */
export const network = { ready: null, asked: [] };

export class FakeSocket {
  static all = [];
  static get last() { return FakeSocket.all.at(-1); }

  constructor(url) {
    Object.assign(this, { url, readyState: 0, frames: [], isClosed: false });
    FakeSocket.all.push(this);
  }

  get commands() { return this.frames.flatMap((frame) => frame.split("\n")).map((line) => JSON.parse(line)); }
  command(method) { return this.commands.findLast((command) => method in command); }
  send(frame) { this.frames.push(frame); }
  close() { this.isClosed = true; }

  open() {
    this.readyState = 1;
    this.onopen();
  }

  receive(...replies) { this.onmessage({ data: replies.map((reply) => JSON.stringify(reply)).join("\n") }); }
  reply(method, result) { this.receive({ id: this.command(method).id, [method]: result }); }
  refuse(method, error) { this.receive({ id: this.command(method).id, error }); }
  push(channel, push) { this.receive({ push: { channel, ...push } }); }

  drop(code = 1006, reason = "") {
    this.readyState = 3;
    this.onclose({ code, reason });
  }
}

export class FakeTarget extends EventTarget {
  visibilityState = "visible";
  listeners = 0;

  addEventListener(...args) {
    this.listeners++;
    super.addEventListener(...args);
  }

  removeEventListener(...args) {
    this.listeners--;
    super.removeEventListener(...args);
  }
}

export const settle = () => new Promise((resolve) => setImmediate(resolve));

export async function tick(ms) {
  mock.timers.tick(ms);
  await settle();
}

/** A hub that connected, the names of its events, and its socket. */
export async function connected(options, result = {}) {
  const hub = new Hub(URL, options);
  const events = record(hub, "connecting", "connected", "disconnected", "error");
  hub.connect();
  await settle();
  const socket = await welcome(result);
  return { hub, events, socket };
}

export async function welcome(result = {}) {
  const socket = FakeSocket.last;
  socket.open();
  socket.reply("connect", { client: "c", ping: 25, pong: true, ...result });
  await settle();
  return socket;
}

export async function reconnected(result) {
  await tick(20_000);
  return welcome(result);
}

export function record(emitter, ...names) {
  const events = [];
  for (const name of names) emitter.on(name, (context) => events.push([name, context]));
  return events;
}

export const names = (events) => events.map(([name]) => name);

beforeEach(() => {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  FakeSocket.all = [];
  globalThis.WebSocket = FakeSocket;
  network.ready = { status: 200, headers: new Headers() };
  network.asked = [];
  globalThis.fetch = async (url) => {
    network.asked.push(String(url));
    if (network.ready instanceof Error) throw network.ready;
    return network.ready;
  };
  globalThis.document = new FakeTarget();
  const page = new FakeTarget();
  globalThis.addEventListener = page.addEventListener.bind(page);
  globalThis.removeEventListener = page.removeEventListener.bind(page);
  globalThis.dispatchEvent = page.dispatchEvent.bind(page);
});
