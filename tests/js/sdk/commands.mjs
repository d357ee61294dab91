// The SDK from npm: every command, every kind of channel, and what the server does to it.

import assert from "node:assert/strict";

import {
  api, commandsIn, connect, Events, join, proxy, publish, run, scenario, subscribe, subscriptionToken, token,
} from "./support.mjs";

const code = (expected) => (error) => error.code === expected;

scenario("connects, and stops where it has no token", async () => {
  const { events } = connect({ token: token("ann") });
  assert.match((await events.count("connected")).client, /^[0-9a-f]+$/);
  const nobody = connect();
  assert.equal((await nobody.events.count("disconnected")).code, 101);
});

scenario("publications reach every subscriber with their publisher", async () => {
  const ann = connect({ token: token("ann", { info: { name: "Ann" } }) });
  const bob = connect({ token: token("bob") });
  const heard = [await subscribe(ann.client, "chat:publish"), await subscribe(bob.client, "chat:publish")];
  const sent = [{ text: "héllo" }, [1, 2.5, null], "text", 0, false, {}];
  for (const data of sent) await heard[0].subscription.publish(data);
  const { client } = await ann.events.count("connected");
  for (const { events } of heard) {
    await events.count("publication", sent.length);
    assert.deepEqual(events.data, sent);
    const [{ info, offset }] = events.of("publication");
    assert.equal(offset, 1);
    assert.deepEqual([info.client, info.user, info.connInfo], [client, "ann", { name: "Ann" }]);
  }
});

scenario("tags, and publications of the server", async () => {
  const { client } = connect({ token: token("ann") });
  const { events } = await subscribe(client, "plain:tags");
  await publish("plain:tags", { n: 1 }, { tags: { kind: "goal" } });
  const { data, tags, info } = await events.count("publication");
  assert.deepEqual([data, tags, info], [{ n: 1 }, { kind: "goal" }, undefined]);
});

scenario("history by limit, since and reverse", async () => {
  const { client } = connect({ token: token("ann") });
  const { subscription } = await subscribe(client, "chat:history");
  for (let number = 1; number <= 10; number++) await publish("chat:history", number);
  const read = async (asked) => (await subscription.history(asked)).publications.map(({ data }) => data);
  const top = await subscription.history({ limit: 0 });
  assert.deepEqual([top.offset, top.publications], [10, []]);
  assert.deepEqual(await read({ limit: -1 }), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  assert.deepEqual(await read({ limit: 3, reverse: true }), [10, 9, 8]);
  const since = { offset: 4, epoch: top.epoch };
  assert.deepEqual(await read({ limit: 2, since }), [5, 6]);
  assert.deepEqual(await read({ limit: -1, since, reverse: true }), [3, 2, 1]);
  await assert.rejects(read({ limit: -1, since: { offset: 4, epoch: "another" } }), code(112));
});

scenario("presence, its numbers, joins and leaves", async () => {
  const ann = connect({ token: token("ann", { info: { name: "Ann" } }) });
  const asks = await subscribe(ann.client, "chat:presence", { joinLeave: true });
  assert.equal((await asks.events.count("join")).info.user, "ann");
  const bob = connect({ token: token("bob") });
  const silent = await subscribe(bob.client, "chat:presence");
  assert.equal((await asks.events.count("join", 2)).info.user, "bob");
  const { client } = await ann.events.count("connected");
  const { clients } = await asks.subscription.presence();
  assert.equal(Object.keys(clients).length, 2);
  const { user, connInfo } = clients[client];
  assert.deepEqual([user, connInfo], ["ann", { name: "Ann" }]);
  assert.deepEqual({ ...await asks.subscription.presenceStats() }, { numClients: 2, numUsers: 2 });
  silent.subscription.unsubscribe();
  assert.equal((await asks.events.count("leave")).info.user, "bob");
  assert.equal(silent.events.of("join").length, 0);
});

scenario("what is zero or empty is a number, a text or an object", async () => {
  const { client, events } = connect({ token: token("ann") });
  await events.count("connected");
  const { numClients, numUsers } = await client.presenceStats("readable:nobody");
  assert.deepEqual([numClients, numUsers], [0, 0]);
  assert.deepEqual({ ...(await client.presence("readable:nobody")).clients }, {});
  const { publications, offset, epoch } = await client.history("readable:nobody", { limit: -1 });
  assert.deepEqual([publications, offset, typeof epoch], [[], 0, "string"]);
});

scenario("a client without a user is shown with an empty user", async () => {
  const channel = "chat:anonymous";
  const { client, events } = connect({ token: token("") });
  const { client: id } = await events.count("connected");
  const options = { token: subscriptionToken("", channel), joinLeave: true };
  const { subscription, events: own } = await subscribe(client, channel, options);
  await subscription.publish(1);
  const { info: joined } = await own.count("join");
  const { info: published } = await own.count("publication");
  const { clients: { [id]: present } } = await subscription.presence();
  for (const info of [joined, published, present]) assert.deepEqual([info.user, info.client], ["", id]);
});

scenario("calls and messages reach the app", async () => {
  const { client, events } = connect({ token: token("caller") });
  await events.count("connected");
  assert.equal((await client.rpc("add", [1, 2, 3])).data, 6);
  await assert.rejects(client.rpc("nothing", null), code(104));
  await client.send({ hello: 1 });
  let heard = [];
  while (!heard.length) heard = (await client.rpc("heard", null)).data; // requests overtake each other
  assert.deepEqual(heard, [{ hello: 1 }]);
});

scenario("what a channel does not offer is refused", async () => {
  const { client } = connect({ token: token("ann") });
  await subscribe(client, "plain:refused");
  await assert.rejects(client.history("plain:refused", { limit: 1 }), code(108));
  await assert.rejects(client.presence("plain:refused"), code(108));
  await assert.rejects(client.publish("chat:refused", {}), code(103));
  await assert.rejects(client.publish("nowhere:refused", {}), code(102));
  await assert.rejects(client.publish("a b", {}), code(107));
  const eve = join(client, "limited:talk#bob");
  assert.equal((await eve.events.count("unsubscribed")).code, 103);
  await subscribe(client, "limited:talk#ann,bob");
});

scenario("channels of other types are refused", async () => {
  const { client, events } = connect({ token: token("ann") });
  await events.count("connected");
  const map = client.newMapSubscription("chat:map");
  const mapEvents = new Events(map, ["unsubscribed"]);
  map.subscribe();
  assert.equal((await mapEvents.count("unsubscribed")).code, 107);
  const poll = client.newSharedPollSubscription("chat:poll", { getSignature: async () => ({}) });
  const pollEvents = new Events(poll, ["unsubscribed"]);
  poll.subscribe();
  assert.equal((await pollEvents.count("unsubscribed")).code, 108);
  await assert.rejects(client.mapPublish("plain:map", "key", { n: 1 }), code(107));
  await assert.rejects(client.mapRemove("plain:map", "key"), code(107));
});

scenario("server-side subscriptions of the token and of the API", async () => {
  const subs = { "private:token": { data: { hi: 1 } } };
  const { events } = connect({ token: token("served", { channels: ["news:token"], subs }) });
  await events.count("subscribed", 2);
  const joined = Object.fromEntries(events.of("subscribed").map((context) => [context.channel, context]));
  assert.deepEqual(joined["private:token"].data, { hi: 1 });
  assert.equal(joined["news:token"].recoverable, true);
  await publish("news:token", 1);
  assert.equal((await events.count("publication")).channel, "news:token");
  await api("subscribe", { user: "served", channel: "own:api" });
  assert.equal((await events.count("subscribed", 3)).channel, "own:api");
  await publish("own:api", 2);
  assert.equal((await events.count("publication", 2)).channel, "own:api");
  await api("unsubscribe", { user: "served", channel: "own:api" });
  assert.equal((await events.count("unsubscribed")).channel, "own:api");
});

scenario("the server unsubscribes and disconnects", async () => {
  const { client, events } = connect({ token: token("guest") });
  const { events: own } = await subscribe(client, "chat:guest");
  await api("unsubscribe", { user: "guest", channel: "chat:guest" });
  assert.equal((await own.count("unsubscribed")).code, 2000);
  await api("disconnect", { user: "guest", disconnect: { code: 4001, reason: "come back" } });
  const { code: left, reason } = await events.count("connecting", 2);
  assert.deepEqual([left, reason], [4001, "come back"]);
  await events.count("connected", 2);
  await api("disconnect", { user: "guest" });
  assert.equal((await events.count("disconnected")).code, 3503);
});

scenario("a batch of commands is one frame, answered in order", async () => {
  const { client, events, frames } = connect({ token: token("ann") });
  await events.count("connected");
  const { subscription } = await subscribe(client, "chat:batch");
  const before = frames.length;
  client.startBatching();
  const sent = Array.from({ length: 50 }, (_, number) => subscription.publish(number));
  const calls = [subscription.history({ limit: -1 }), subscription.presenceStats()];
  client.stopBatching();
  await Promise.all(sent);
  const [history, stats] = await Promise.all(calls);
  assert.equal(frames.length, before + 1);
  assert.equal(commandsIn(client, frames.at(-1)), 52);
  assert.deepEqual(history.publications.map(({ data }) => data), Array.from({ length: 50 }, (_, number) => number));
  assert.equal(stats.numClients, 1);
});

scenario("a thousand channels on one connection, and again after a cut", async () => {
  const network = await proxy();
  const { client, events, frames } = connect({ token: token("ann") }, network.port);
  await events.count("connected");
  const all = Array.from({ length: 1000 }, (_, number) => join(client, `news:thousand-${number}`));
  await Promise.all(all.map((one) => one.events.count("subscribed")));
  const before = frames.length;
  network.cut();
  await Promise.all(all.map((one) => one.events.count("subscribed", 2)));
  const longest = Math.max(...frames.slice(before).map((frame) => commandsIn(client, frame)));
  assert.ok(longest >= 1000, `an SDK comes back in one frame, this was ${longest} commands`);
  await api("broadcast", { channels: all.map((_, number) => `news:thousand-${number}`), data: "all" });
  await Promise.all(all.map((one) => one.events.count("publication")));
  const { events: over } = join(client, "news:one-more");
  assert.equal((await over.count("unsubscribed")).code, 106);
});

await run();
