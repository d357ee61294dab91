// What the hooks for React, Vue and Svelte share: components that follow the same channel share one subscription.

import assert from "node:assert/strict";
import { test } from "node:test";

import { connectionStore, presenceStore, subscriptionStore } from "../../hub/static/stores.js";
import { connected, reconnected, settle } from "./fakes.mjs";

const subscribes = (socket) => socket.commands.filter(({ subscribe }) => subscribe).map(({ subscribe }) => subscribe);
const told = (store) => {
  const states = [];
  const stop = store.subscribe(() => states.push(store.get()));
  return { states, stop };
};

test("two components, one subscription, from the first to the last", async () => {
  const { hub, socket } = await connected();
  const stores = [subscriptionStore(hub, "room", { rewind: 2 }), subscriptionStore(hub, "room", { rewind: 5, recoverable: true })];
  assert.deepEqual(stores[0].get().publications, []);
  const [one, two] = stores.map(told);
  await settle();
  assert.equal(subscribes(socket).length, 1);
  socket.reply("subscribe", { recoverable: true, epoch: "e", offset: 2 });
  await settle();
  assert.equal(socket.command("history").history.limit, 5);
  socket.reply("history", { publications: [{ data: "b", offset: 2 }, { data: "a", offset: 1 }], epoch: "e", offset: 2 });
  for (const store of stores) {
    assert.deepEqual(store.get().publications.map(({ data }) => data), ["a", "b"]);
    assert.equal(store.get().state, "subscribed");
  }
  one.stop();
  await settle();
  assert.equal(socket.command("unsubscribe"), undefined);
  const count = one.states.length;
  socket.push("room", { pub: { data: "c", offset: 3 } });
  assert.equal(one.states.length, count);
  assert.equal(two.states.at(-1).publications.length, 3);
  const late = subscriptionStore(hub, "room");
  assert.equal(late.get().publications.length, 3, "a component that comes later sees what is there at once");
  two.stop();
  const again = told(stores[0]); // as React does in its strict mode
  await settle();
  assert.equal(socket.command("unsubscribe"), undefined);
  again.stop();
  await settle();
  assert.ok(socket.command("unsubscribe"));
  assert.equal(subscribes(socket).length, 1);
});

test("only the newest publications are kept, as many as the most of the components wants", async () => {
  const { hub, socket } = await connected();
  const store = subscriptionStore(hub, "room", { keep: 2 });
  told(store);
  told(subscriptionStore(hub, "room", { keep: 3 }));
  await settle();
  socket.reply("subscribe", {});
  for (const data of ["a", "b", "c", "d"]) socket.push("room", { pub: { data } });
  assert.deepEqual(store.get().publications.map(({ data }) => data), ["b", "c", "d"]);
});

test("presence: the clients of the channel, and who comes and goes during the call", async () => {
  const { hub, socket } = await connected();
  const store = presenceStore(hub, "room");
  told(store);
  await settle();
  assert.equal(subscribes(socket)[0].join_leave, true);
  socket.reply("subscribe", {});
  await settle();
  socket.push("room", { leave: { info: { user: "a", client: "1" } } });
  socket.push("room", { join: { info: { user: "c", client: "3" } } });
  socket.reply("presence", { presence: { 1: { user: "a", client: "1" }, 2: { user: "b", client: "2" } } });
  await settle();
  assert.deepEqual(store.get().clients.map(({ user }) => user), ["b", "c"]);
  socket.push("room", { leave: { info: { user: "b", client: "2" } } });
  assert.deepEqual(store.get().clients.map(({ user }) => user), ["c"]);
  socket.drop();
  assert.equal(store.get().state, "subscribing");
  const next = await reconnected();
  next.reply("subscribe", {});
  await settle();
  next.refuse("presence", { code: 108, message: "not available" });
  await settle();
  assert.equal(store.get().error.code, 108);
});

test("a component that comes later and wants more: joins and leaves, then history", async () => {
  const { hub, socket } = await connected();
  const store = subscriptionStore(hub, "room", { recoverable: true });
  const { states } = told(store);
  await settle();
  socket.reply("subscribe", { recoverable: true, epoch: "e", offset: 1 });
  socket.push("room", { pub: { data: "b", offset: 2 } });
  told(presenceStore(hub, "room"));
  await settle();
  assert.deepEqual(subscribes(socket)[1], {
    channel: "room", recoverable: true, join_leave: true, recover: true, epoch: "e", offset: 2,
  });
  socket.reply("unsubscribe", {});
  socket.reply("subscribe", { recoverable: true, recovered: true, was_recovering: true, epoch: "e", offset: 2 });
  assert.deepEqual(store.get().publications.map(({ data }) => data), ["b"]);
  assert.ok(states.every(({ state }) => state !== "unsubscribed"));

  told(subscriptionStore(hub, "room", { rewind: 9 }));
  await settle();
  socket.reply("unsubscribe", {});
  socket.reply("subscribe", { recoverable: true, epoch: "e", offset: 2 });
  await settle();
  socket.reply("history", { publications: [{ data: "b", offset: 2 }, { data: "a", offset: 1 }], epoch: "e", offset: 2 });
  assert.deepEqual(store.get().publications.map(({ data }) => data), ["a", "b"]);
  assert.equal(subscribes(socket)[2].recover, undefined);
});

test("what was missed and what failed show", async () => {
  const { hub, socket } = await connected();
  const store = subscriptionStore(hub, "room", { since: { epoch: "e", offset: 1 }, recoverable: true });
  told(store);
  await settle();
  socket.reply("subscribe", { recoverable: true, epoch: "e", offset: 9, was_recovering: true });
  assert.equal(store.get().missed, true);
  const refused = subscriptionStore(hub, "secret");
  told(refused);
  await settle();
  socket.refuse("subscribe", { code: 103, message: "permission denied" });
  assert.equal(refused.get().error.code, 103);
  assert.equal(refused.get().state, "unsubscribed");
  hub.subscribe("own");
  const taken = subscriptionStore(hub, "own");
  const { stop } = told(taken);
  await settle();
  assert.match(taken.get().error.message, /subscribed to own already/);
  stop();
  await settle();
});

test("publish goes through the subscription, and fails where no channel is followed", async () => {
  const { hub, socket } = await connected();
  const idle = subscriptionStore(hub, null);
  idle.subscribe(() => {})();
  await assert.rejects(idle.get().publish(1), /no channel is followed/);
  const store = subscriptionStore(hub, "room");
  told(store);
  store.get().publish("early");
  await settle();
  socket.reply("subscribe", {});
  store.get().publish("x", { idempotencyKey: "k" });
  await settle();
  assert.deepEqual(socket.commands.filter(({ publish }) => publish).map(({ publish }) => publish.data), ["early", "x"]);
});

test("the state of the connection", async () => {
  const { hub, socket } = await connected();
  const store = connectionStore(hub);
  const { states, stop } = told(store);
  socket.drop();
  await reconnected();
  stop();
  hub.disconnect();
  assert.deepEqual(states, ["connecting", "connected"]);
  assert.equal(store.get(), "disconnected");
});
