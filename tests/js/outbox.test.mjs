// The outbox of the browser client: publishes that are made without a connection, or whose answer was lost.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Hub, MessageExpiredError, MessageTooLargeError, QueueFullError } from "../../hub/static/hub.js";
import { connected, FakeSocket, network, reconnected, settle, tick, URL, welcome } from "./fakes.mjs";

const KNOWS_KEYS = { idempotency_ttl: 300 };
const published = (socket) => socket.commands.filter(({ publish }) => publish).map(({ publish }) => publish);

function accept(socket) {
  socket.receive(...socket.commands.filter(({ publish }) => publish).map(({ id }) => ({ id, publish: {} })));
}

test("publishes without a connection go in their order after the reconnect, later than a call may wait", async () => {
  const { hub, socket } = await connected({}, KNOWS_KEYS);
  socket.drop();
  network.ready = new TypeError("no network");
  const sent = ["a", "b", "c"].map((data) => hub.publish("c", data));
  for (let wait = 0; wait < 30_000; wait += 10_000) {
    await tick(10_000);
    FakeSocket.last.drop();
  }
  const next = await reconnected(KNOWS_KEYS);
  assert.deepEqual(published(next).map(({ data }) => data), ["a", "b", "c"]);
  accept(next);
  await Promise.all(sent);
});

test("a publish whose answer was lost is repeated with its key, before those that waited", async () => {
  const { hub, socket } = await connected({}, KNOWS_KEYS);
  const sent = [hub.publish("c", "a"), hub.publish("c", "b")];
  await settle();
  socket.drop();
  sent.push(hub.publish("c", "c"));
  const next = await reconnected(KNOWS_KEYS);
  assert.deepEqual(published(next).map(({ data }) => data), ["a", "b", "c"]);
  const keys = published(next).map(({ idempotency_key: key }) => key);
  assert.deepEqual(published(socket).map(({ idempotency_key: key }) => key), keys.slice(0, 2));
  assert.equal(new Set(keys).size, 3);
  assert.ok(keys.every((key) => /^[!-~]{10,64}$/.test(key)));
  next.drop();
  const third = await reconnected(KNOWS_KEYS);
  accept(third);
  await Promise.all(sent);
  assert.deepEqual(published(third).map(({ idempotency_key: key }) => key), keys);
});

test("two clients never choose the same key", async () => {
  const keys = new Set();
  for (let count = 0; count < 5; count++) {
    const { hub, socket } = await connected({}, KNOWS_KEYS);
    hub.publish("c", 1);
    await settle();
    keys.add(published(socket)[0].idempotency_key);
  }
  assert.equal(keys.size, 5);
});

test("a server that knows no keys is sent nothing twice", async () => {
  const { hub, socket } = await connected();
  const lost = hub.publish("c", "a");
  await settle();
  assert.deepEqual(published(socket), [{ channel: "c", data: "a" }]);
  const cut = assert.rejects(lost, { message: "transport closed" });
  socket.drop();
  await cut;

  // A hub is rolled back to a version that knows no keys.
  const next = await reconnected(KNOWS_KEYS);
  const doubtful = hub.publish("c", "b");
  await settle();
  next.drop();
  const waiting = hub.publish("c", "c");
  const refused = assert.rejects(doubtful, { message: "transport closed" });
  const old = await reconnected();
  await refused;
  assert.deepEqual(published(old), [{ channel: "c", data: "c" }]);
  accept(old);
  await waiting;
});

test("the outbox is bounded in number, and what was lost counts", async () => {
  const { hub, socket } = await connected({ outbox: { maxMessages: 2 } }, KNOWS_KEYS);
  const sent = ["a", "b", "c"].map((data) => hub.publish("c", data));
  await settle();
  const cut = assert.rejects(sent[2], { message: "transport closed" });
  socket.drop();
  await cut;
  await assert.rejects(hub.publish("c", "d"), (error) => {
    assert.ok(error instanceof QueueFullError);
    assert.equal(error.message, "the outbox holds 2 publishes already (outbox.maxMessages)");
    return error.temporary;
  });
  hub.rpc("m").catch(() => {}); // calls of other kinds have their own room
  const next = await reconnected(KNOWS_KEYS);
  accept(next);
  await Promise.all(sent.slice(0, 2));
});

test("the outbox is bounded in age, and says whether the publish may have arrived", async () => {
  const { hub, socket } = await connected({ outbox: { maxAge: 3000 } }, KNOWS_KEYS);
  network.ready = new TypeError("no network");
  const doubtful = hub.publish("c", "a");
  await settle();
  socket.drop();
  const unsent = hub.publish("c", "b");
  const checks = [
    assert.rejects(doubtful, { name: "MessageExpiredError", code: 22, message: /it may have arrived/ }),
    assert.rejects(unsent, { name: "MessageExpiredError", code: 22, message: "the publish was not sent in time (outbox.maxAge)" }),
  ];
  await tick(3000);
  await Promise.all(checks);
  const next = await reconnected(KNOWS_KEYS);
  assert.deepEqual(published(next), []);
});

test("what grew too old while the machine slept is not sent", async () => {
  const { hub, socket } = await connected({ outbox: { maxAge: 60_000 } }, KNOWS_KEYS);
  socket.drop();
  const check = assert.rejects(hub.publish("c", "old"), MessageExpiredError);
  const { now } = Date;
  Date.now = () => now() + 3_600_000; // the clock went on, and no timer did
  try {
    const next = await reconnected(KNOWS_KEYS);
    await check;
    assert.deepEqual(published(next), []);
  } finally {
    Date.now = now;
  }
});

test("a repeat ends before the hub forgets the key, however old a message may grow", async () => {
  const { hub, socket } = await connected({ outbox: { maxAge: 86_400_000 } }, { idempotency_ttl: 100 });
  network.ready = new TypeError("no network");
  const doubtful = hub.publish("c", "a");
  await settle();
  socket.drop();
  const unsent = hub.publish("c", "b");
  const check = assert.rejects(doubtful, MessageExpiredError);
  await tick(70_000);
  await check;
  FakeSocket.last.drop();
  const next = await reconnected({ idempotency_ttl: 100 });
  assert.deepEqual(published(next).map(({ data }) => data), ["b"]);
  accept(next);
  await unsent;
});

test("without an outbox a publish is a call as any other", async () => {
  const { hub, socket } = await connected({ outbox: { maxMessages: 0 } }, KNOWS_KEYS);
  const lost = hub.publish("c", "a");
  await settle();
  assert.deepEqual(published(socket), [{ channel: "c", data: "a" }]);
  const cut = assert.rejects(lost, { message: "transport closed" });
  socket.drop();
  await cut;
  const late = assert.rejects(hub.publish("c", "b"), { message: "timeout" });
  await tick(5000);
  await late;
});

test("a key of the page's own goes with the publish, so that the page can repeat it", async () => {
  const { hub, socket } = await connected({ outbox: { maxMessages: 0 } }, KNOWS_KEYS);
  const subscription = hub.subscribe("room");
  await settle();
  socket.reply("subscribe", {});
  hub.publish("c", 1, { idempotencyKey: "order-1" });
  subscription.publish(2, { idempotencyKey: "order-2" });
  await settle();
  assert.deepEqual(published(socket), [
    { channel: "c", data: 1, idempotency_key: "order-1" }, { channel: "room", data: 2, idempotency_key: "order-2" },
  ]);
  await assert.rejects(hub.publish("c", 1, { key: "k" }), { name: "TypeError", message: /did you mean idempotencyKey/ });
});

test("a publish that gets no answer is no failure, but the link is asked whether it lives", async () => {
  const { hub, socket } = await connected({}, KNOWS_KEYS);
  const sent = hub.publish("c", "a");
  await tick(5000);
  assert.ok(socket.command("ping"), "the link is asked");
  await tick(5000);
  assert.ok(socket.isClosed, "it did not answer");
  const next = await reconnected(KNOWS_KEYS);
  accept(next);
  await sent;

  const slow = hub.publish("c", "b");
  await tick(5000);
  next.reply("ping", {});
  await tick(5000);
  assert.equal(hub.state, "connected");
  accept(next);
  await slow;
});

test("a subscription's publish waits for the subscription, and ends with it", async () => {
  const { hub, socket } = await connected({}, KNOWS_KEYS);
  const subscription = hub.subscribe("room");
  await settle();
  socket.reply("subscribe", {});
  const doubtful = subscription.publish("a");
  await settle();
  socket.drop();
  const waiting = assert.rejects(subscription.publish("b"), { message: "subscription unsubscribed" });
  const cut = assert.rejects(doubtful, { message: "subscription unsubscribed" });
  subscription.unsubscribe();
  await Promise.all([waiting, cut]);

  subscription.subscribe();
  const next = await reconnected(KNOWS_KEYS);
  const again = subscription.publish("c");
  await settle();
  assert.deepEqual(published(next), []);
  next.reply("subscribe", {});
  await settle();
  accept(next);
  await again;
  const left = subscription.publish("d");
  await settle();
  subscription.unsubscribe();
  const closed = assert.rejects(left, { message: "transport closed" });
  next.drop();
  await closed;
});

test("a disconnect that the page asks for ends what waits, and what is refused fails at once", async () => {
  const { hub, socket } = await connected({}, KNOWS_KEYS);
  const doubtful = hub.publish("c", "a");
  await settle();
  socket.drop();
  const ended = [doubtful, hub.publish("c", "b")].map((sent) => assert.rejects(sent, { message: "client disconnected" }));
  hub.disconnect();
  await Promise.all(ended);
  hub.connect();
  await settle();
  const limited = { ...KNOWS_KEYS, data: { reconnect_token: "r", message_bytes_max: 200 } };
  const large = assert.rejects(hub.publish("c", "x".repeat(300)), MessageTooLargeError);
  const refused = hub.publish("c", "c");
  const next = await welcome(limited);
  await large;
  next.refuse("publish", { code: 103, message: "permission denied" });
  await assert.rejects(refused, { code: 103 });
});

test("a page that loads without a network sends what was published meanwhile", async () => {
  const hub = new Hub(URL);
  hub.connect();
  const sent = hub.publish("c", "early");
  await settle();
  const socket = await welcome(KNOWS_KEYS);
  assert.deepEqual(published(socket).map(({ data }) => data), ["early"]);
  accept(socket);
  await sent;
});
