// The SDK from npm with tokens of every kind: good, short-lived, expired and invalid.

import assert from "node:assert/strict";

import {
  api, connect, join, proxy, publish, run, scenario, subscribe, subscriptionToken, token,
} from "./support.mjs";

/** Calls of a function that makes tokens, and a promise for the time when there were so many. */
function counted(make, count) {
  let calls = 0;
  let enough;
  const reached = new Promise((resolve) => { enough = resolve; });
  const getToken = async (context) => {
    if (++calls === count) enough();
    return make(context);
  };
  return { getToken, reached };
}

scenario("short-lived tokens are refreshed without a reconnect", async () => {
  const connection = counted(() => token("ann", { ttl: 1 }), 3);
  const subscription = counted(({ channel }) => subscriptionToken("ann", channel, { ttl: 1 }), 3);
  const { client, events } = connect({ getToken: connection.getToken });
  const { events: own } = await subscribe(client, "private:refresh", { getToken: subscription.getToken });
  await Promise.all([connection.reached, subscription.reached]);
  await publish("private:refresh", "still in");
  await own.count("publication");
  assert.deepEqual([events.of("connected").length, own.of("subscribed").length], [1, 1]);
  assert.deepEqual([...events.of("error"), ...own.of("error")], []);
});

scenario("an expired token makes the client fetch another", async () => {
  const { events } = connect({ token: token("ann", { ttl: -60 }), getToken: async () => token("ann") });
  await events.count("connected");
  assert.deepEqual(events.of("error").map(({ error }) => error.code), [109]);
});

scenario("a connection that the server expires fetches another token", async () => {
  const { events } = connect({ token: token("old", { ttl: 3600 }), getToken: async () => token("old") });
  await events.count("connected");
  await api("refresh", { user: "old", expired: true });
  assert.equal((await events.count("connecting", 2)).code, 3005);
  await events.count("connected", 2);
});

scenario("an invalid token stops the client", async () => {
  for (const made of [token("ann", { key: "another-secret-that-is-long-enough" }), "no token at all"]) {
    const { events } = connect({ token: made });
    assert.equal((await events.count("disconnected")).code, 3500);
  }
});

scenario("an expired subscription token makes the client fetch another", async () => {
  const { client } = connect({ token: token("ann") });
  const { events } = await subscribe(client, "private:expired", {
    token: subscriptionToken("ann", "private:expired", { ttl: -60 }),
    getToken: async ({ channel }) => subscriptionToken("ann", channel),
  });
  assert.deepEqual(events.of("error").map(({ error }) => error.code), [109]);
});

scenario("a subscription whose refreshed token has expired is subscribed again", async () => {
  let made = 0;
  const getToken = async ({ channel }) => subscriptionToken("ann", channel, { ttl: ++made === 2 ? -60 : 1 });
  const { client } = connect({ token: token("ann") });
  const { events } = await subscribe(client, "private:late", { getToken });
  assert.equal((await events.count("subscribing", 2)).code, 2501);
  await events.count("subscribed", 2);
  assert.deepEqual(events.of("unsubscribed"), []);
});

scenario("a connection whose refreshed token has other channels reconnects with them", async () => {
  let made = 0;
  const getToken = async () => token("ann", { ttl: 1, channels: [++made < 3 ? "own:before" : "own:after"] });
  const { client, events } = connect({ getToken });
  const keep = ({ data }) => data?.reconnect_token && client.setToken(data.reconnect_token);
  client.on("connected", keep).on("message", keep);
  assert.equal((await events.count("subscribed")).channel, "own:before");
  assert.equal((await events.count("connecting", 2)).code, 3010);
  assert.equal((await events.count("subscribed", 2)).channel, "own:after");
});

scenario("a subscription token is no login", async () => {
  const { events } = connect({ token: token("ann", { channel: "private:login" }) });
  assert.equal((await events.count("disconnected")).code, 3500);
});

scenario("an invalid subscription token is refused", async () => {
  const { client } = connect({ token: token("ann") });
  const made = [subscriptionToken("bob", "private:invalid"), subscriptionToken("ann", "private:other"), "none"];
  for (const one of made) {
    const { subscription, events } = join(client, "private:invalid", { token: one });
    assert.equal((await events.count("unsubscribed")).code, 103);
    client.removeSubscription(subscription);
  }
});

scenario("a reconnect token brings a client back, with what it missed and no login", async () => {
  const network = await proxy();
  let logins = 0;
  const getToken = async () => token("ann", { login: ++logins, channels: ["own:back"] });
  const { client, events } = connect({ getToken }, network.port);
  const keep = ({ data }) => data?.reconnect_token && client.setToken(data.reconnect_token);
  client.on("connected", keep).on("message", keep);
  const { client: before } = await events.count("connected");
  await publish("own:back", 1);
  await events.count("publication");
  network.down();
  await events.count("connecting", 2);
  await publish("own:back", 2);
  network.up();
  const { client: after } = await events.count("connected", 2);
  await events.count("publication", 2);
  assert.deepEqual([events.data, after, logins], [[1, 2], before, 1]);
  // One that is refused is an error on which the SDK logs in, and stays.
  client.setToken(client._token.slice(0, -8) + "AAAAAAAA");
  network.cut();
  await events.count("connected", 3);
  assert.deepEqual([events.of("error").map(({ error }) => error.code).includes(109), logins], [true, 2]);
});

await run();
