// The SDK from npm over a network that fails: nothing is skipped, nothing comes twice, and a gap is told.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

import { api, connect, proxy, publish, run, scenario, subscribe, token } from "./support.mjs";

const upTo = (count) => Array.from({ length: count }, (_, number) => number);

scenario("what was missed in a cut is recovered", async () => {
  const network = await proxy();
  const { client } = connect({ token: token("ann") }, network.port);
  const { events } = await subscribe(client, "news:cut");
  for (const number of upTo(3)) await publish("news:cut", number);
  await events.count("publication", 3);
  network.down();
  await events.count("subscribing", 2);
  for (const number of [3, 4, 5, 6, 7]) await publish("news:cut", number);
  network.up();
  const { wasRecovering, recovered } = await events.count("subscribed", 2);
  assert.deepEqual([wasRecovering, recovered], [true, true]);
  await publish("news:cut", 8);
  await events.count("publication", 9);
  assert.deepEqual(events.data, upTo(9));
});

scenario("what was missed while unsubscribed is recovered", async () => {
  const { client } = connect({ token: token("ann") });
  const { subscription, events } = await subscribe(client, "chat:unsubscribed", { recoverable: true });
  await publish("chat:unsubscribed", 0);
  await events.count("publication");
  subscription.unsubscribe();
  for (const number of [1, 2, 3]) await publish("chat:unsubscribed", number);
  subscription.subscribe();
  await events.count("publication", 4);
  assert.deepEqual(events.data, upTo(4));
});

scenario("nothing is lost or doubled in many cuts under way", async () => {
  const network = await proxy();
  const { client, events: own } = connect({ token: token("ann", { channels: ["own:cuts"] }) }, network.port);
  const { events } = await subscribe(client, "news:cuts");
  for (const number of upTo(300)) {
    await api("broadcast", { channels: ["news:cuts", "own:cuts"], data: number });
    if (number % 50 === 25) network.cut();
    await sleep(Math.random() * 3); // the cuts fall anywhere in a reconnect
  }
  for (const heard of [events, own]) {
    await heard.count("publication", 300);
    assert.deepEqual(heard.data, upTo(300));
  }
  assert.ok(events.of("subscribed").length > 1);
});

scenario("a position that history has lost is told", async () => {
  const network = await proxy();
  const { client } = connect({ token: token("ann") }, network.port);
  const { events } = await subscribe(client, "short:lost");
  network.down();
  await events.count("subscribing", 2);
  for (const number of upTo(10)) await publish("short:lost", number);
  network.up();
  const { wasRecovering, recovered, streamPosition } = await events.count("subscribed", 2);
  assert.deepEqual([wasRecovering, recovered, streamPosition.offset], [true, false, 10]);
  await publish("short:lost", 10);
  await events.count("publication");
  assert.deepEqual(events.data, [10]);
});

scenario("a lost position makes the app load its state again", async () => {
  const network = await proxy();
  const loaded = [];
  const getState = async () => {
    const { offset, epoch } = await api("history", { channel: "short:state" });
    loaded.push(offset);
    return { offset, epoch };
  };
  await publish("short:state", 0);
  const { client } = connect({ token: token("ann") }, network.port);
  const { events } = await subscribe(client, "short:state", { getState });
  network.down();
  await events.count("subscribing", 2);
  for (const number of upTo(10)) await publish("short:state", number);
  network.up();
  await events.count("subscribed", 2);
  assert.deepEqual(loaded, [1, 11]);
  await publish("short:state", "live");
  await events.count("publication");
  assert.deepEqual(events.data, ["live"]);
});

scenario("server-side subscriptions recover in the connect reply", async () => {
  const network = await proxy();
  const channels = ["own:reply", "short:reply"];
  const { events } = connect({ token: token("ann", { channels }) }, network.port);
  await events.count("subscribed", 2);
  await publish("own:reply", 0);
  await events.count("publication");
  network.down();
  await events.count("subscribing", 2);
  for (const number of [1, 2, 3, 4, 5]) {
    await publish("own:reply", number);
    await publish("short:reply", number);
  }
  network.up();
  await events.count("subscribed", 4);
  const again = Object.fromEntries(events.of("subscribed").slice(2).map((context) => [context.channel, context]));
  assert.equal(again["own:reply"].recovered, true);
  assert.deepEqual([again["short:reply"].wasRecovering, again["short:reply"].recovered], [true, false]);
  await events.count("publication", 6);
  assert.deepEqual(events.data, upTo(6));
});

await run();
