// What the scenarios share: clients whose events are kept, tokens, the server API, and a network that fails.

import { createHmac } from "node:crypto";
import { createConnection, createServer } from "node:net";

import { Centrifuge } from "centrifuge";
import { Centrifuge as ProtobufCentrifuge } from "centrifuge/build/protobuf";
import { EventSource } from "eventsource";
import { WebSocket } from "ws";

/** Longer than any event takes on a busy machine. */
const WAIT_MS = 60_000;
const { port, encoding, transport, secret, subscriptionSecret, apiKey } = JSON.parse(process.env.HUB_TEST);

const scenarios = [];
const cleanups = [];

/** Add a scenario: a name, and what throws where it fails. */
export function scenario(name, body) { scenarios.push({ name, body }); }

/** Run the scenarios in their order, and print a line of JSON for each. */
export async function run() {
  for (const { name, body } of scenarios) {
    let error;
    try {
      await body();
    } catch (thrown) {
      error = thrown.stack;
    }
    for (const cleanup of cleanups.splice(0)) cleanup();
    console.log(JSON.stringify({ name, error }));
  }
}

const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

/** A JSON Web Token. `ttl` is in seconds, below zero for one that expired. */
export function token(user, { ttl, key = secret, ...claims } = {}) {
  const payload = { sub: user, ...claims };
  if (ttl !== undefined) payload.exp = Date.now() / 1000 + ttl;
  const text = `${encode({ alg: "HS256", typ: "JWT" })}.${encode(payload)}`;
  return `${text}.${createHmac("sha256", key).update(text).digest("base64url")}`;
}

export function subscriptionToken(user, channel, claims = {}) {
  return token(user, { key: subscriptionSecret, channel, ...claims });
}

/** Call the server API. */
export async function api(method, body) {
  const reply = await fetch(`http://127.0.0.1:${port}/api/${method}`, {
    method: "POST", headers: { "X-API-Key": apiKey }, body: JSON.stringify(body),
  });
  const { result, error } = await reply.json();
  if (error) throw new Error(`${method}: ${error.code} ${error.message}`);
  return result;
}

export const publish = (channel, data, more = {}) => api("publish", { channel, data, ...more });

/** The events of an emitter, kept in their order. */
export class Events {
  #all = [];
  #waiting = new Set();

  constructor(emitter, names) {
    for (const name of names) {
      emitter.on(name, (context) => {
        this.#all.push([name, context]);
        for (const look of this.#waiting) look();
      });
    }
  }

  of(name) { return this.#all.filter(([event]) => event === name).map(([, context]) => context); }
  get data() { return this.of("publication").map((publication) => publication.data); }

  /** Wait until there are so many events of a name, and return the last of them. */
  count(name, count = 1) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(look);
        reject(new Error(`${this.of(name).length} of ${count} ${name}; came: ${JSON.stringify(this.#all)}`));
      }, WAIT_MS);
      const look = () => {
        if (this.of(name).length < count) return;
        clearTimeout(timer);
        this.#waiting.delete(look);
        resolve(this.of(name)[count - 1]);
      };
      this.#waiting.add(look);
      look();
    });
  }
}

const inBytes = (value) => new TextEncoder().encode(JSON.stringify(value));
const inValues = (bytes) => JSON.parse(new TextDecoder().decode(bytes));

/** Put something else in place of every payload of a message, at all levels. `name` is the message's field. */
function convert(message, isPayload, convertOne, name = "") {
  for (const [key, value] of Object.entries(message)) {
    const field = Array.isArray(message) ? name : key;
    if (isPayload(key, value, name)) message[key] = convertOne(value);
    else if (value !== null && typeof value === "object") convert(value, isPayload, convertOne, field);
  }
}

/** Whether a payload is a publication's own: it may be a delta, and is made a value when it comes to the app. */
const isPublished = (key, name) => key === "data" && (name === "pub" || name === "publications");

/** The SDK over Protobuf, as an app has it whose payloads are JSON: their text goes in as bytes. */
class ProtobufOfJSON extends ProtobufCentrifuge {
  _formatOverride() {
    super._formatOverride();
    const codec = this._codec;
    const encode = codec.encodeCommands.bind(codec);
    const decode = codec.decodeReplies.bind(codec);
    codec.encodeCommands = (commands) => {
      const copies = structuredClone(commands);
      for (const copy of copies) convert(copy, (key) => key === "data", inBytes);
      return encode(copies);
    };
    codec.decodeReplies = (data) => {
      const replies = decode(data);
      const isPayload = (key, value, name) => value instanceof Uint8Array && !isPublished(key, name);
      for (const reply of replies) convert(reply, isPayload, inValues);
      return replies;
    };
  }

  _getPublicationContext(channel, publication) {
    const context = super._getPublicationContext(channel, publication);
    return { ...context, data: inValues(context.data) };
  }
}

const CLIENTS = { json: Centrifuge, protobuf: ProtobufOfJSON };

/** How many commands are in a frame that a client sent. */
export function commandsIn(client, frame) {
  return encoding === "json" ? frame.split("\n").length : client._codec.decodeCommands(frame).length;
}

const CLIENT_EVENTS = [
  "connecting", "connected", "disconnected", "error", "message",
  "subscribed", "subscribing", "unsubscribed", "publication", "join", "leave",
];
const SUBSCRIPTION_EVENTS = [
  "subscribing", "subscribed", "unsubscribed", "publication", "join", "leave", "error",
];

/** A client that was told to connect, its events, and the frames that it sent. */
export function connect(options = {}, at = port) {
  const scheme = transport === "websocket" ? "ws" : "http";
  const endpoints = [{ transport, endpoint: `${scheme}://127.0.0.1:${at}/connection/${transport}` }];
  const client = new CLIENTS[encoding](endpoints, {
    websocket: WebSocket, eventsource: EventSource, emulationEndpoint: `http://127.0.0.1:${at}/emulation`,
    minReconnectDelay: 50, timeout: WAIT_MS, ...options,
  });
  const frames = [];
  const encode = client._codec.encodeCommands.bind(client._codec);
  client._codec.encodeCommands = (commands) => {
    const frame = encode(commands);
    if (commands.length) frames.push(frame);
    return frame;
  };
  const events = new Events(client, CLIENT_EVENTS);
  cleanups.push(() => client.disconnect());
  client.connect();
  return { client, events, frames };
}

/** Subscribe to a channel. */
export function join(client, channel, options = {}) {
  const subscription = client.newSubscription(channel, { minResubscribeDelay: 50, ...options });
  const events = new Events(subscription, SUBSCRIPTION_EVENTS);
  subscription.subscribe();
  return { subscription, events };
}

/** Subscribe to a channel, and wait until that stands. */
export async function subscribe(client, channel, options) {
  const joined = join(client, channel, options);
  await joined.events.count("subscribed");
  return joined;
}

/** A TCP proxy to the hub whose connections can be cut: `cut` once, `down` until `up`. */
export async function proxy() {
  const open = new Set();
  let isDown = false;
  const server = createServer((socket) => {
    if (isDown) return socket.destroy();
    const target = createConnection(port, "127.0.0.1");
    for (const [one, other] of [[socket, target], [target, socket]]) {
      open.add(one);
      one.pipe(other);
      one.on("error", () => {});
      one.on("close", () => {
        open.delete(one);
        other.destroy();
      });
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const cut = () => { for (const socket of open) socket.destroy(); };
  cleanups.push(() => {
    server.close();
    cut();
  });
  return {
    port: server.address().port,
    cut,
    down() {
      isDown = true;
      cut();
    },
    up() { isDown = false; },
  };
}
