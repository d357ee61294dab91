// The option `rewind` of a subscription: history, then live, with nothing twice and nothing between them lost.

import assert from "node:assert/strict";
import { test } from "node:test";

import { connected, names, reconnected, record, settle, tick } from "./fakes.mjs";

const at = (offset, more = {}) => ({ recoverable: true, epoch: "e", offset, ...more });
const pubs = (...offsets) => offsets.map((offset) => ({ data: `n${offset}`, offset }));
const offsets = (events) => events.filter(([name]) => name === "publication").map(([, { offset }]) => offset);

async function rewinding(options = { rewind: 3 }) {
  const { hub, socket } = await connected();
  const subscription = hub.subscribe("room", options);
  const events = record(subscription, "subscribing", "subscribed", "publication", "error", "join", "unsubscribed");
  await settle();
  return { hub, socket, subscription, events };
}

test("history comes first, in order, and what is pushed meanwhile follows it, each once", async () => {
  const { socket, subscription, events } = await rewinding();
  assert.equal(socket.command("subscribe").subscribe.recoverable, true);
  socket.reply("subscribe", at(7));
  assert.deepEqual(socket.command("history"), undefined);
  await settle();
  assert.deepEqual(socket.command("history").history, {
    channel: "room", limit: 3, reverse: true, since: { epoch: "e", offset: 8 },
  });
  socket.push("room", { pub: { data: "n8", offset: 8 } });
  socket.push("room", { join: { info: { user: "u", client: "k" } } });
  assert.deepEqual(events, []);
  assert.equal(subscription.state, "subscribing");
  socket.reply("history", { publications: pubs(7, 6, 5), epoch: "e", offset: 8 });
  socket.push("room", { pub: { data: "n9", offset: 9 } });
  assert.deepEqual(names(events), ["subscribed", ...Array(4).fill("publication"), "join", "publication"]);
  assert.deepEqual(offsets(events), [5, 6, 7, 8, 9]);
});

test("a channel without a publication yet", async () => {
  const { socket, events } = await rewinding();
  socket.reply("subscribe", at(0));
  await settle();
  socket.push("room", { pub: { data: "n1", offset: 1 } });
  socket.reply("history", { epoch: "e", offset: 0 });
  assert.deepEqual(offsets(events), [1]);
  socket.drop();
  const next = await reconnected();
  assert.equal(next.command("subscribe").subscribe.offset, 1, "what was held moved the position");
});

test("after a reconnect it recovers, and rewinds again only where that failed", async () => {
  const { socket, events } = await rewinding();
  socket.reply("subscribe", at(2));
  await settle();
  socket.reply("history", { publications: pubs(2, 1), epoch: "e", offset: 2 });
  socket.drop();
  const second = await reconnected();
  assert.deepEqual(second.command("subscribe").subscribe, {
    channel: "room", recoverable: true, recover: true, epoch: "e", offset: 2,
  });
  second.reply("subscribe", at(3, { was_recovering: true, recovered: true, publications: pubs(3) }));
  await settle();
  assert.equal(second.command("history"), undefined);
  second.drop();

  const third = await reconnected();
  third.reply("subscribe", at(5, { was_recovering: true }));
  await settle();
  third.reply("history", { publications: pubs(5, 4, 3), epoch: "e", offset: 5 });
  assert.deepEqual(offsets(events), [1, 2, 3, 4, 5], "what was seen is not shown again");
  third.drop();

  const fourth = await reconnected();
  fourth.reply("subscribe", { recoverable: true, epoch: "new", offset: 2, was_recovering: true });
  await settle();
  fourth.reply("history", { publications: pubs(2, 1), epoch: "new", offset: 2 });
  assert.deepEqual(offsets(events), [1, 2, 3, 4, 5, 1, 2], "another epoch counts from the start");
});

test("a link that breaks during the history: the subscription begins again, with nothing held twice", async () => {
  const { socket, events } = await rewinding();
  socket.reply("subscribe", at(1));
  await settle();
  socket.push("room", { pub: { data: "n2", offset: 2 } });
  socket.drop();
  const next = await reconnected();
  next.reply("subscribe", at(2));
  await settle();
  next.reply("history", { publications: pubs(2, 1), epoch: "e", offset: 2 });
  assert.deepEqual(offsets(events), [1, 2]);
});

test("a history that fails for a while, or belongs to another epoch by now, is asked for again", async () => {
  for (const error of [{ code: 100, message: "internal", temporary: true }, { code: 112, message: "unrecoverable" }]) {
    const { socket, events, subscription } = await rewinding();
    socket.reply("subscribe", at(1));
    await settle();
    socket.push("room", { pub: { data: "n2", offset: 2 } });
    socket.refuse("history", error);
    await settle();
    assert.ok(socket.command("unsubscribe"));
    socket.reply("unsubscribe", {});
    assert.deepEqual(events.map(([name, { type }]) => [name, type]), [["error", "history"]]);
    await tick(1000);
    socket.reply("subscribe", at(2));
    await settle();
    socket.reply("history", { publications: pubs(2, 1), epoch: "e", offset: 2 });
    assert.deepEqual(offsets(events), [1, 2]);
    assert.equal(subscription.state, "subscribed");
  }
});

test("a history that is refused for good is told, and live goes on", async () => {
  const { socket, events } = await rewinding();
  socket.reply("subscribe", {});
  await settle();
  assert.equal(socket.command("history").history.since, undefined);
  socket.push("room", { pub: { data: "live" } });
  socket.refuse("history", { code: 108, message: "not available" });
  assert.deepEqual(names(events), ["error", "subscribed", "publication"]);
});

test("an unsubscribe during the history, by the page or by the hub", async () => {
  for (const [end, state] of [
    [({ subscription }) => subscription.unsubscribe(), "unsubscribed"],
    [({ socket }) => socket.push("room", { unsubscribe: { code: 2000, reason: "server unsubscribe" } }), "unsubscribed"],
    [({ socket }) => socket.push("room", { unsubscribe: { code: 2500, reason: "insufficient state" } }), "subscribing"],
  ]) {
    const all = await rewinding();
    all.socket.reply("subscribe", at(1));
    await settle();
    const { id } = all.socket.command("history");
    end(all);
    all.socket.receive({ id, history: { publications: pubs(1), epoch: "e", offset: 1 } });
    all.socket.push("room", { pub: { data: "n2", offset: 2 } });
    assert.equal(all.subscription.state, state);
    assert.deepEqual(offsets(all.events), []);
  }
});

test("a rewind that cannot be", async () => {
  const { hub } = await connected();
  for (const rewind of [0, -1, 1.5, "10", null]) {
    assert.throws(() => hub.subscribe("room", { rewind }), { name: "TypeError", message: /rewind is a number/ });
  }
  const tagsFilter = { key: "kind", cmp: "eq", val: "goal" };
  assert.throws(() => hub.subscribe("room", { rewind: 1, tagsFilter }), /exclude each other/);
});
