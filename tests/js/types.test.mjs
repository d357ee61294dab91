// The types of `hub.d.ts` against the client itself.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import * as client from "../../hub/static/hub.js";

const types = readFileSync(new globalThis.URL("../../hub/static/hub.d.ts", import.meta.url), "utf8");

/** The names that a class or an interface of the types declares. */
function declared(kind, name) {
  const [, body] = new RegExp(`export ${kind} ${name}\\b[^{]*\\{\\n(.*?)\\n\\}`, "s").exec(types);
  const names = [...body.matchAll(/^ {2}(?:readonly |private )?(\w+)[?<(:]/gm)].map(([, found]) => found);
  return [...new Set(names)].filter((found) => found !== "constructor").sort();
}

/** The names that an error message lists. */
function known(call) {
  let message = "";
  assert.throws(call, (error) => { ({ message } = error); return error instanceof TypeError; });
  return /It knows (.*)$/.exec(message)[1].split(", ").sort();
}

function members(object) {
  const names = new Set();
  for (let at = object; at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    for (const name of Object.getOwnPropertyNames(at)) if (!name.startsWith("_") && name !== "constructor") names.add(name);
  }
  return [...names].sort();
}

test("the exports of the client are those of its types", () => {
  const names = [...types.matchAll(/^export class (\w+)/gm)].map(([, name]) => name).sort();
  assert.deepEqual(names, Object.keys(client).sort());
});

test("the members, the options and the events are those of the types", () => {
  const hub = new client.Hub("https://h");
  const room = hub.subscribe("room");
  assert.deepEqual(declared("class", "Hub"), members(hub));
  assert.deepEqual(declared("class", "Subscription"), members(room));
  assert.deepEqual(declared("interface", "HubOptions"), known(() => new client.Hub("https://h", { x: 1 })));
  assert.deepEqual(declared("interface", "OutboxOptions"), known(() => new client.Hub("https://h", { outbox: { x: 1 } })));
  assert.deepEqual(declared("interface", "SubscribeOptions"), known(() => hub.subscribe("other", { x: 1 })));
  assert.deepEqual(declared("interface", "HubEvents"), known(() => hub.on("x", () => {})));
  assert.deepEqual(declared("interface", "SubscriptionEvents"), known(() => room.on("x", () => {})));
});

test("the version of the npm package is that of the Python package", () => {
  const read = (path) => readFileSync(new globalThis.URL(path, import.meta.url), "utf8");
  const [, version] = /^version = "(.+)"$/m.exec(read("../../pyproject.toml"));
  assert.equal(JSON.parse(read("../../hub/static/package.json")).version, version);
});
