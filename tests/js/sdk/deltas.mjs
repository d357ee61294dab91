// The SDK from npm with deltas and with filters by tags: each client has what it would have without them.

import assert from "node:assert/strict";

import { api, connect, proxy, publish, run, scenario, subscribe, token } from "./support.mjs";

const DELTA = { delta: "fossil" };

/** A document of about 2 KB, and what becomes of it in so many small changes. */
function changes(count) {
  const rows = Array.from({ length: 40 }, (_, n) => ({ player: `Spieler ${n} ⚽`, score: n * 17, "a:b": "\"c\"" }));
  return Array.from({ length: count }, (_, n) => {
    rows[(n * 7) % rows.length].score = n * 31;
    return structuredClone(rows);
  });
}

const numbers = ({ numPublications, numFullPayloads, numDeltaPayloads }) =>
  [numPublications, numFullPayloads, numDeltaPayloads];

scenario("a document that changes comes as deltas", async () => {
  const { client } = connect({ token: token("ann") });
  const ann = await subscribe(client, "board:changes", DELTA);
  const bob = await subscribe(connect({ token: token("bob") }).client, "board:changes");
  const sent = changes(20);
  for (const data of sent) await publish("board:changes", data);
  for (const { events } of [ann, bob]) {
    await events.count("publication", sent.length);
    assert.deepEqual(events.data, sent);
  }
  const stats = ann.subscription.deltaStats();
  assert.deepEqual(numbers(stats), [20, 1, 19]);
  assert.ok(stats.bytesReceived < 0.15 * stats.bytesDecoded);
});

scenario("who comes later begins with a whole one, and nobody else notices", async () => {
  const { client } = connect({ token: token("ann") });
  const ann = await subscribe(client, "board:later", DELTA);
  const sent = changes(6);
  for (const data of sent.slice(0, 3)) await publish("board:later", data);
  await ann.events.count("publication", 3);
  const bob = await subscribe(connect({ token: token("bob") }).client, "board:later", DELTA);
  for (const data of sent.slice(3)) await publish("board:later", data);
  await ann.events.count("publication", 6);
  await bob.events.count("publication", 3);
  assert.deepEqual([ann.events.data, bob.events.data], [sent, sent.slice(3)]);
  assert.deepEqual(numbers(ann.subscription.deltaStats()), [6, 1, 5]);
  assert.deepEqual(numbers(bob.subscription.deltaStats()), [3, 1, 2]);
});

scenario("what is recovered comes as deltas, and goes on live", async () => {
  const network = await proxy();
  const { client } = connect({ token: token("ann") }, network.port);
  const { subscription, events } = await subscribe(client, "board:recovered", DELTA);
  const sent = changes(12);
  for (const data of sent.slice(0, 2)) await publish("board:recovered", data);
  await events.count("publication", 2);
  network.down();
  await events.count("subscribing", 2);
  for (const data of sent.slice(2, 10)) await publish("board:recovered", data);
  network.up();
  assert.equal((await events.count("subscribed", 2)).recovered, true);
  for (const data of sent.slice(10)) await publish("board:recovered", data);
  await events.count("publication", 12);
  assert.deepEqual(events.data, sent);
  // Whole are the first one, the first of those recovered, and the first after them.
  assert.deepEqual(numbers(subscription.deltaStats()), [12, 3, 9]);
});

scenario("a publisher says which may be deltas", async () => {
  const { client } = connect({ token: token("ann") });
  const { subscription, events } = await subscribe(client, "asked:board", DELTA);
  const sent = changes(4);
  const wishes = [{}, {}, { delta: true }, {}];
  for (const [number, data] of sent.entries()) await publish("asked:board", data, wishes[number]);
  await api("broadcast", { channels: ["asked:board"], data: sent[0], delta: true });
  await events.count("publication", 5);
  assert.deepEqual(events.data, [...sent, sent[0]]);
  assert.deepEqual(numbers(subscription.deltaStats()), [5, 3, 2]);
});

scenario("payloads of every kind", async () => {
  const { client } = connect({ token: token("ann") });
  const { events } = await subscribe(client, "board:kinds", DELTA);
  const sent = ["text", "", 0, -1.5, true, null, [], {}, "é😀".repeat(99), "é😀".repeat(98), { "\n": "\u2028\\" }];
  for (const data of sent) await publish("board:kinds", data);
  await events.count("publication", sent.length);
  assert.deepEqual(events.data, sent);
});

scenario("a channel without deltas", async () => {
  const { client } = connect({ token: token("ann") });
  const { subscription, events } = await subscribe(client, "news:whole", DELTA);
  for (const data of ["\"1\"", 2]) await publish("news:whole", data, { delta: true });
  await events.count("publication", 2);
  assert.deepEqual(events.data, ["\"1\"", 2]);
  assert.equal(subscription.deltaStats().numPublications, 0);
});

const kind = (val) => ({ key: "kind", cmp: "eq", val });

scenario("a filter lets through what it names", async () => {
  const { client } = connect({ token: token("ann") });
  const tagsFilter = { op: "or", nodes: [kind("goal"), { key: "minute", cmp: "gte", val: "90" }] };
  const { subscription, events } = await subscribe(client, "board:filter", { tagsFilter });
  const other = await subscribe(connect({ token: token("bob") }).client, "board:filter", { tagsFilter: kind("foul") });
  const all = await subscribe(connect({ token: token("eve") }).client, "board:filter", DELTA);
  const tags = [
    { kind: "goal", minute: "5" }, { kind: "foul", minute: "7" }, undefined, { minute: "91.5" }, { kind: "foul" },
  ];
  for (const [number, each] of tags.entries()) await publish("board:filter", number, { tags: each });
  for (const [heard, expected] of [[all.events, [0, 1, 2, 3, 4]], [events, [0, 3]], [other.events, [1, 4]]]) {
    await heard.count("publication", expected.length);
    assert.deepEqual(heard.data, expected);
  }
  subscription.unsubscribe();
  subscription.setTagsFilter(kind("foul"));
  subscription.subscribe();
  await events.count("subscribed", 2);
  await publish("board:filter", 5, { tags: { kind: "foul" } });
  await events.count("publication", 4);
  assert.deepEqual(events.data, [0, 3, 4, 5]); // it recovers from what it saw last, by its new filter
});

scenario("what is recovered passes the filter, and nothing of the rest counts as lost", async () => {
  const network = await proxy();
  const { client } = connect({ token: token("ann") }, network.port);
  const { events } = await subscribe(client, "board:missed", { tagsFilter: kind("goal"), positioned: true });
  const send = (number, name) => publish("board:missed", number, { tags: { kind: name } });
  for (const number of [0, 1, 2]) await send(number, number ? "foul" : "goal");
  await events.count("publication");
  network.down();
  await events.count("subscribing", 2);
  for (const number of [3, 4, 5, 6]) await send(number, number % 2 ? "foul" : "goal");
  network.up();
  assert.equal((await events.count("subscribed", 2)).recovered, true);
  await send(7, "goal");
  await events.count("publication", 4);
  assert.deepEqual(events.data, [0, 4, 6, 7]);
  assert.equal(events.of("unsubscribed").length, 0);
});

scenario("a filter that is none, and a channel that has none", async () => {
  const { client } = connect({ token: token("ann") });
  const refused = async (channel, tagsFilter, expected) => {
    const subscription = client.newSubscription(channel, { tagsFilter });
    const failed = new Promise((resolve) => subscription.on("unsubscribed", resolve));
    subscription.subscribe();
    assert.equal((await failed).code, expected);
  };
  await refused("board:wrong", { key: "kind", cmp: "like", val: "goal" }, 107);
  await refused("news:none", kind("goal"), 108);
});

await run();
