// The browser client against a socket that the test holds the other end of. Run with `node --test tests/js/`.

import assert from "node:assert/strict";
import { test } from "node:test";

import { backoff, endpoint } from "../../hub/static/common.js";
import { Hub, MessageTooLargeError, QueueFullError, UnauthorizedError } from "../../hub/static/hub.js";
import { connected, FakeSocket, names, network, reconnected, record, settle, tick, URL, welcome } from "./fakes.mjs";


test("backoff: full jitter between the bounds, capped before the jitter, and never NaN", () => {
  assert.equal(backoff(0, 500, 20_000, () => 0), 500);
  assert.equal(backoff(0, 500, 20_000, () => 1), 1000);
  assert.equal(backoff(3, 500, 20_000, () => 0.5), 2500);
  for (const attempt of [6, 31, 1024, 100_000]) {
    assert.equal(backoff(attempt, 500, 20_000, () => 1), 20_000);
    assert.equal(backoff(attempt, 500, 20_000, () => 0.5), 10_250, "clients past the cap do not meet there");
    assert.equal(backoff(attempt, 0, 20_000, () => 1), 0);
  }
});

test("endpoint: a base, a mounted base, a relative one, and a WebSocket's own address", () => {
  assert.equal(endpoint("http://h:8000"), "ws://h:8000/connection/websocket");
  assert.equal(endpoint("https://h/live/"), "wss://h/live/connection/websocket");
  assert.equal(endpoint("/live", "https://h/page#x"), "wss://h/live/connection/websocket");
  assert.equal(endpoint("/connection/websocket", "http://h/"), "ws://h/connection/websocket");
  assert.equal(endpoint("ws://h"), "ws://h/connection/websocket");
  assert.equal(endpoint("wss://h/own/path"), "wss://h/own/path");
});

test("connect: the first id is 1, and a ping is answered where a pong is wanted", async () => {
  const { socket, events } = await connected({ token: "t", data: { a: 1 }, name: "n" });
  assert.deepEqual(socket.commands, [{ id: 1, connect: { token: "t", data: { a: 1 }, name: "n", subs: {} } }]);
  assert.deepEqual(names(events), ["connecting", "connected"]);
  socket.receive({});
  assert.equal(socket.frames.at(-1), "{}");

  const { socket: quiet } = await connected({}, { pong: false });
  quiet.receive({});
  assert.equal(quiet.frames.length, 1);
});

test("close codes: the stopping ranges stop, 1009 stops, everything else comes back", async () => {
  for (const [code, stops] of [
    [1000, false], [1006, false], [1009, true], [1012, false], [3000, false], [3499, false], [3500, true],
    [3999, true], [4000, false], [4499, false], [4500, true], [4999, true],
  ]) {
    const { hub, socket } = await connected();
    socket.drop(code, "why");
    assert.equal(hub.state, stops ? "disconnected" : "connecting", `code ${code}`);
    hub.disconnect();
  }
});

test("reconnects: each wait is announced, is within its bounds, and starts anew after a success", async () => {
  const { events, socket } = await connected();
  network.ready = new TypeError("no network");
  socket.drop();
  for (let attempt = 1; attempt < 9; attempt++) {
    const [name, context] = events.at(-1);
    assert.equal(name, "connecting");
    assert.equal(context.attempt, attempt);
    assert.ok(context.delay >= 500 && context.delay <= Math.min(20_000, 500 + 500 * 2 ** (attempt - 1)));
    await tick(context.delay);
    assert.equal(FakeSocket.all.length, attempt + 1);
    FakeSocket.last.drop();
  }
  const again = await reconnected();
  again.drop();
  assert.equal(events.at(-1)[1].attempt, 1);
});

test("a socket that never opens, or whose connect gets no reply, is given up after the timeout", async () => {
  const { hub, socket } = await connected({ timeout: 5000 });
  socket.drop();
  await tick(1000);
  assert.equal(FakeSocket.all.length, 2);
  await tick(5000);
  assert.ok(FakeSocket.last.isClosed);
  await tick(1500);
  FakeSocket.last.open();
  await tick(5000);
  assert.ok(FakeSocket.last.isClosed);
  assert.equal(hub.state, "connecting");
});

test("connect errors: 109 fetches a token, a temporary one backs off, another one stops", async () => {
  let tokens = 0;
  const { hub, socket } = await connected({ token: "old", getToken: async () => `new${++tokens}` });
  socket.drop();
  await tick(1000);
  FakeSocket.last.open();
  FakeSocket.last.refuse("connect", { code: 109, message: "token expired" });
  await tick(20_000);
  FakeSocket.last.open();
  assert.equal(FakeSocket.last.command("connect").connect.token, "new1");
  FakeSocket.last.refuse("connect", { code: 100, message: "internal", temporary: true });
  assert.equal(hub.state, "connecting");
  await tick(20_000);
  FakeSocket.last.open();
  FakeSocket.last.refuse("connect", { code: 101, message: "unauthorized" });
  assert.equal(hub.state, "disconnected");
  assert.equal(tokens, 1, "a token that works is kept");
});

test("getToken: a refusal stops, a failure backs off", async () => {
  for (const refuse of [async () => "", async () => { throw new UnauthorizedError("no"); }]) {
    const hub = new Hub(URL, { getToken: refuse });
    hub.connect();
    await settle();
    assert.equal(hub.state, "disconnected");
    assert.equal(FakeSocket.all.length, 0);
  }
  let calls = 0;
  const hub = new Hub(URL, { getToken: async () => { if (++calls < 3) throw new Error("502"); return "t"; } });
  const events = record(hub, "error");
  hub.connect();
  await settle();
  await tick(20_000);
  await tick(20_000);
  assert.equal(calls, 3);
  assert.deepEqual(events.map(([, { type }]) => type), ["connectToken", "connectToken"]);
  assert.equal(FakeSocket.all.length, 1);
});

test("a reconnect token is presented in place of the app's, the newest one, and is no message", async () => {
  let fetched = 0;
  const getToken = async () => `app-${++fetched}`;
  const { hub, socket } = await connected({ getToken }, { data: { reconnect_token: "r1", theirs: 1 } });
  const messages = record(hub, "message");
  assert.equal(socket.command("connect").connect.token, "app-1");
  socket.drop();
  await tick(20_000);
  FakeSocket.last.open();
  assert.equal(FakeSocket.last.command("connect").connect.token, "r1");
  FakeSocket.last.reply("connect", { client: "c" });
  FakeSocket.last.push(undefined, { message: { data: { reconnect_token: "r2" } } });
  FakeSocket.last.push(undefined, { message: { data: { text: "hello" } } });
  FakeSocket.last.push(undefined, { message: {} });
  assert.deepEqual(messages.map(([, { data }]) => data), [{ text: "hello" }, undefined]);
  FakeSocket.last.drop(3001, "shutdown");
  await tick(20_000);
  FakeSocket.last.open();
  assert.equal(FakeSocket.last.command("connect").connect.token, "r2");
  assert.equal(fetched, 1, "the app was asked for no other");
});

test("a reconnect token that is refused makes way for the app's", async () => {
  const refusals = [
    (socket) => socket.refuse("connect", { code: 109, message: "token expired" }),
    (socket) => socket.drop(3500, "invalid token"),
  ];
  for (const refuse of refusals) {
    for (const [options, token] of [[{ token: "mine" }, "mine"], [{ getToken: async () => "fresh" }, "fresh"]]) {
      const { hub, socket } = await connected(options, { data: { reconnect_token: "r" } });
      socket.drop();
      await tick(20_000);
      FakeSocket.last.open();
      refuse(FakeSocket.last);
      await tick(20_000);
      FakeSocket.last.open();
      assert.equal(FakeSocket.last.command("connect").connect.token, token);
      FakeSocket.last.drop(3500, "invalid token");
      assert.equal(hub.state, "disconnected");
    }
  }
});

test("a user who leaves, or is another one, does not come back by the old reconnect token", async () => {
  for (const change of [
    (hub) => hub.setToken("other"),
    (hub) => hub.setData({ role: "other" }),
    (hub) => { hub.disconnect(); hub.connect(); },
  ]) {
    const { hub, socket } = await connected({ token: "mine" }, { data: { reconnect_token: "r" } });
    change(hub);
    if (socket.onclose) socket.drop();
    await tick(20_000);
    FakeSocket.last.open();
    assert.notEqual(FakeSocket.last.command("connect").connect.token, "r");
  }
});

test("a handshake that failed: the hub is asked how long to wait, and that long nothing hastens it", async () => {
  const { hub, socket, events } = await connected({ minReconnectDelay: 100, maxReconnectDelay: 100 });
  socket.drop();
  await tick(100);
  assert.deepEqual(network.asked, [], "a link that broke is no refusal");
  network.ready = { status: 503, headers: new Headers({ "Retry-After": "3" }) };
  FakeSocket.last.drop();
  await tick(100);
  assert.deepEqual(network.asked, ["http://hub.test/readyz"]);
  assert.equal(FakeSocket.all.length, 2, "it was not tried");
  assert.equal(events.at(-1)[1].delay, 3100);
  document.dispatchEvent(new Event("visibilitychange"));
  await tick(3000);
  assert.equal(network.asked.length, 1);
  await tick(100);
  assert.equal(network.asked.length, 2, "and asked again before it tries");
  network.ready = { status: 200, headers: new Headers() };
  await tick(3100);
  assert.equal(FakeSocket.all.length, 3);
  for (network.ready of [new TypeError("no network"), { status: 503, headers: new Headers({ "Retry-After": "soon" }) }]) {
    const opened = FakeSocket.all.length;
    FakeSocket.last.drop();
    await tick(100);
    assert.equal(FakeSocket.all.length, opened + 1);
  }
  await welcome();
  assert.equal(hub.state, "connected");
});

/** A hub over whose network no WebSocket passes: its streams, and what was posted to it. */
function overHTTP() {
  const streams = [];
  const posted = [];
  let status = 204;
  const credentials = new Set();
  globalThis.fetch = async (url, { body, signal, credentials: used } = {}) => {
    const path = new globalThis.URL(url).pathname;
    if (path === "/readyz") return network.ready;
    if (path === "/connection/websocket") return { status: 426 };
    credentials.add(`${path} ${used}`);
    if (path === "/emulation") {
      posted.push(JSON.parse(body));
      await settle();
      return { status };
    }
    assert.equal(path, "/connection/http_stream");
    const stream = { hello: JSON.parse(body), signal };
    streams.push(stream);
    stream.body = new ReadableStream({ start(controller) { stream.controller = controller; } });
    stream.send = (text) => stream.controller.enqueue(new TextEncoder().encode(text));
    stream.receive = (...replies) => stream.send(replies.map((reply) => `${JSON.stringify(reply)}\n`).join(""));
    stream.welcome = async () => {
      const connect = { client: "c", session: "s", node: "n", ping: 25, pong: true };
      stream.receive({ id: stream.hello.id, connect });
      await settle();
    };
    return { ok: true, body: stream.body };
  };
  return { streams, posted, credentials, answer: (code) => { status = code; } };
}

/** A hub that connects where each WebSocket is refused, up to its first stream. */
async function streaming(options) {
  const network = overHTTP();
  const hub = new Hub(URL, { minReconnectDelay: 100, maxReconnectDelay: 100, ...options });
  const events = record(hub, "connecting", "connected", "disconnected", "error");
  hub.connect();
  await settle();
  for (let refused = 1; refused <= 2; refused++) {
    assert.equal(FakeSocket.all.length, refused);
    FakeSocket.last.drop();
    await tick(100);
  }
  assert.equal(network.streams.length, 1);
  return { hub, events, ...network };
}

test("where WebSockets are refused by a hub that is there, a stream takes their place", async () => {
  const { hub, streams, posted } = await streaming({ token: "t" });
  assert.equal(FakeSocket.all.length, 2);
  assert.equal(streams[0].hello.connect.token, "t");
  await streams[0].welcome();
  assert.equal(hub.state, "connected");
  const call = hub.rpc("sum", [1, 2]);
  await settle();
  assert.deepEqual([posted[0].session, posted[0].node], ["s", "n"]);
  const { id, rpc } = JSON.parse(posted[0].data);
  assert.deepEqual(rpc, { method: "sum", data: [1, 2] });
  streams[0].send(`{"id":${id},"rpc":`);
  await settle();
  streams[0].send(`{"data":3}}\n{}\n`);
  assert.deepEqual(await call, { data: 3 });
  await settle();
  assert.equal(posted.at(-1).data, "{}", "the ping is answered");
  hub.disconnect();
  assert.ok(streams[0].signal.aborted);
});

test("a stream: both of its requests obey the option credentials", async () => {
  for (const [options, used] of [[{}, "same-origin"], [{ credentials: "include" }, "include"], [{ credentials: "omit" }, "omit"]]) {
    FakeSocket.all = [];
    const { hub, streams, credentials } = await streaming(options);
    await streams[0].welcome();
    hub.send(1);
    await settle();
    assert.deepEqual([...credentials].sort(), [`/connection/http_stream ${used}`, `/emulation ${used}`]);
    hub.disconnect();
  }
});

test("a stream: a message over a limit that the hub did not tell stops the client, as over a WebSocket", async () => {
  const { hub, streams, events, answer } = await streaming();
  await streams[0].welcome();
  answer(413);
  hub.send("large");
  await settle();
  await settle();
  assert.deepEqual(events.at(-1), ["disconnected", { code: 3, reason: "message size limit" }]);
});

test("a stream: what is sent keeps its order, one request after the other", async () => {
  const { hub, streams, posted } = await streaming();
  await streams[0].welcome();
  for (let number = 0; number < 5; number++) {
    hub.send(number);
    await Promise.resolve();
  }
  await settle();
  await settle();
  const sent = posted.flatMap(({ data }) => data.split("\n")).map((line) => JSON.parse(line).send.data);
  assert.deepEqual(sent, [0, 1, 2, 3, 4]);
  assert.ok(posted.length < 5, "what waits goes together");
});

test("a stream that ends, or whose hub knows it no more, is followed by a WebSocket, and if need be a stream", async () => {
  const { hub, streams, answer } = await streaming();
  await streams[0].welcome();
  streams[0].controller.close();
  await settle();
  assert.equal(hub.state, "connecting");
  await tick(100);
  assert.equal(FakeSocket.all.length, 3);
  FakeSocket.last.drop();
  await tick(100);
  await streams[1].welcome();
  assert.equal(hub.state, "connected");
  answer(404);
  hub.send("lost");
  await settle();
  await settle();
  assert.equal(hub.state, "connecting");
  await tick(100);
  await welcome();
  assert.equal(hub.state, "connected");
  assert.equal(streams.length, 2);
});

test("a disconnect in a stream: the codes that stop, and those that do not", async () => {
  for (const [code, state] of [[3503, "disconnected"], [3001, "connecting"]]) {
    FakeSocket.all = [];
    const { hub, streams } = await streaming();
    await streams[0].welcome();
    streams[0].receive({ push: { disconnect: { code, reason: "why" } } });
    await settle();
    assert.equal(hub.state, state);
    hub.disconnect();
  }
});

test("a hub that is away, or busy, is not taken for a network without WebSockets", async () => {
  const { socket } = await connected({ minReconnectDelay: 100, maxReconnectDelay: 100 });
  socket.drop();
  for (network.ready of [new TypeError("no network"), { status: 503, headers: new Headers() }]) {
    for (let attempt = 0; attempt < 5; attempt++) {
      const opened = FakeSocket.all.length;
      await tick(100);
      assert.equal(FakeSocket.all.length, opened + 1);
      FakeSocket.last.drop();
    }
  }
});

test("a call: its result, its error, its time limit, and a broken link", async () => {
  const { hub, socket } = await connected();
  const good = hub.rpc("sum", [1, 2]);
  await settle();
  assert.deepEqual(socket.command("rpc").rpc, { method: "sum", data: [1, 2] });
  socket.reply("rpc", { data: 3 });
  assert.deepEqual(await good, { data: 3 });

  const bad = hub.publish("c", 1);
  await settle();
  socket.refuse("publish", { code: 111, message: "slow down", temporary: true });
  await assert.rejects(bad, { name: "HubError", code: 111, temporary: true });

  const slow = hub.rpc("m", 1);
  const check = assert.rejects(slow, { message: "timeout", temporary: true });
  await tick(5000);
  await check;

  const cut = hub.rpc("m", 1);
  socket.drop();
  await assert.rejects(cut, { message: "transport closed", temporary: true });
});

/** The data of a connect result, with the hub's limit to a message. */
const limited = (max, data = {}) => ({ data: { reconnect_token: "r", message_bytes_max: max, ...data } });

test("a call over the hub's limit is refused before it is sent, and the connection goes on", async () => {
  const { hub, socket, events } = await connected({}, limited(1000, { own: 1 }));
  assert.deepEqual(events.at(-1)[1].data, { reconnect_token: "r", own: 1 }, "the limit is not the page's affair");
  const sent = socket.frames.length;
  const text = "x".repeat(1000);
  for (const call of [() => hub.publish("c", text), () => hub.rpc("m", text), () => hub.send(text)]) {
    await assert.rejects(call(), (error) => {
      assert.ok(error instanceof MessageTooLargeError);
      assert.match(error.message, /the command has 1\d\d\d bytes, and the hub takes 1000 \(client\.message_bytes_max\)/);
      return error.code === 21 && !error.temporary;
    });
  }
  await settle();
  assert.equal(socket.frames.length, sent);
  assert.equal(hub.state, "connected");
  const good = hub.publish("c", "x");
  await settle();
  socket.reply("publish", {});
  await good;
});

test("the limit counts bytes of the whole command, and holds for what waited", async () => {
  const { hub, socket } = await connected({ minReconnectDelay: 100, maxReconnectDelay: 100 });
  socket.drop();
  const overhead = JSON.stringify({ id: 3, publish: { channel: "c", data: "" } }).length;
  const waiting = [hub.publish("c", "é".repeat(50)), hub.publish("c", `${"é".repeat(50)}x`)];
  const refused = assert.rejects(waiting[1], MessageTooLargeError);
  await tick(100);
  const next = await welcome(limited(overhead + 100));
  await refused;
  assert.equal(new TextEncoder().encode(next.frames.at(-1)).length, overhead + 100);
  next.reply("publish", {});
  await waiting[0];
});

test("calls of one tick share no frame over the hub's limit", async () => {
  const { hub, socket } = await connected({}, limited(300));
  for (let number = 0; number < 20; number++) hub.send("é".repeat(20));
  await settle();
  const sizes = socket.frames.slice(1).map((frame) => new TextEncoder().encode(frame).length);
  assert.ok(Math.max(...sizes) <= 300, `${sizes}`);
});

test("a renewed token is newer than the reconnect token", async () => {
  const result = { ping: 0, expires: true, ttl: 60, data: { reconnect_token: "r" } };
  const { hub, socket } = await connected({ token: "t", getToken: async () => "fresh" }, result);
  await tick(54_000);
  assert.equal(socket.command("refresh").refresh.token, "fresh");
  socket.drop(3010, "insufficient state");
  await tick(20_000);
  FakeSocket.last.open();
  assert.equal(FakeSocket.last.command("connect").connect.token, "fresh");
  hub.disconnect();
});

test("offline: calls wait for the connection, a hundred at most, and not for ever", async () => {
  const { hub, socket } = await connected({ minReconnectDelay: 100, maxReconnectDelay: 200 });
  socket.drop();
  const waiting = Array.from({ length: 100 }, (_, index) => hub.rpc("m", index));
  await assert.rejects(hub.rpc("m", 100), QueueFullError);
  await tick(200);
  const next = await welcome();
  assert.deepEqual(next.commands.filter(({ rpc }) => rpc).map(({ rpc }) => rpc.data), [...Array(100).keys()]);
  next.receive(...next.commands.filter(({ rpc }) => rpc).map(({ id }) => ({ id, rpc: {} })));
  await Promise.all(waiting);

  next.drop();
  const late = assert.rejects(hub.rpc("m", 1), { message: "timeout" });
  await tick(5000);
  await late;
  hub.disconnect();
  await assert.rejects(hub.rpc("m", 1), { message: "client disconnected" });

  hub.connect();
  const given = assert.rejects(hub.rpc("m", 1), { message: "client disconnected" });
  hub.disconnect();
  await given;
});

test("calls of one tick share frames, none near the hub's limit", async () => {
  const { hub, socket } = await connected();
  for (let index = 0; index < 100; index++) hub.send("x".repeat(1000));
  await settle();
  assert.ok(socket.frames.length < 20);
  assert.ok(socket.frames.every((frame) => frame.length <= 16_000));
  assert.equal(socket.commands.length, 101);
});

test("silence for the ping and ten seconds more means a dead link; anything heard means life", async () => {
  const { hub, socket } = await connected();
  await tick(34_000);
  socket.push("other", { pub: { data: 1 } });
  await tick(34_000);
  assert.equal(hub.state, "connected");
  await tick(1000);
  assert.equal(hub.state, "connecting");
  assert.ok(socket.isClosed);

  const { hub: unheard } = await connected();
  await tick(35_000);
  assert.equal(unheard.state, "connecting");
});

test("a visible tab: hastens a wait, asks a quiet link, and never revives what its user closed", async () => {
  const { hub, socket } = await connected();
  const show = () => document.dispatchEvent(new Event("visibilitychange"));
  show();
  await settle();
  assert.ok(socket.command("ping"));
  await tick(5000);
  assert.equal(hub.state, "connecting", "the link did not answer");

  document.visibilityState = "hidden";
  show();
  assert.equal(FakeSocket.all.length, 1);
  document.visibilityState = "visible";
  show();
  await settle();
  assert.equal(FakeSocket.all.length, 2);
  show();
  await settle();
  assert.equal(FakeSocket.all.length, 2, "the one that opens is enough");
  await tick(20_000 - 1);
  hub.disconnect();
  const opened = FakeSocket.all.length;
  show();
  await tick(60_000);
  assert.equal(FakeSocket.all.length, opened);
  assert.equal(hub.state, "disconnected");
  assert.equal(document.listeners, 0);
});

/** The clock goes on without any timer, as where the machine sleeps or the tab is frozen. */
function sleep(ms) {
  const { now } = Date;
  Date.now = () => now() + ms;
}

test("a sleep is no silence: the link is asked first, and only a link that does not answer is dead", async () => {
  const { hub, socket } = await connected();
  await tick(20_000);
  sleep(3_600_000);
  await tick(15_000);
  assert.equal(hub.state, "connected", "the page slept, so that nobody knows what was sent");
  assert.ok(socket.command("ping"));
  socket.reply("ping", {});
  await tick(34_000);
  assert.equal(hub.state, "connected");
  await tick(1000);
  assert.equal(hub.state, "connecting", "awake again, silence counts as ever");

  const { hub: dead } = await connected();
  sleep(3_600_000);
  await tick(35_000);
  await tick(5000);
  assert.equal(dead.state, "connecting");
});

test("a sleep is no time in which an answer did not come", async () => {
  const { hub, socket } = await connected();
  const call = hub.rpc("sum", 1);
  await settle();
  sleep(60_000);
  await tick(5000);
  socket.reply("rpc", { data: 2 });
  assert.deepEqual(await call, { data: 2 });
  const lost = assert.rejects(hub.rpc("sum", 1), { message: "timeout" });
  sleep(60_000);
  await tick(5000);
  await tick(5000);
  await lost;
});

test("the offline event: the link is asked at once, and one that lives goes on", async () => {
  const { hub, socket } = await connected();
  dispatchEvent(new Event("offline"));
  dispatchEvent(new Event("offline"));
  await settle();
  assert.equal(socket.commands.filter(({ ping }) => ping).length, 1);
  socket.reply("ping", {});
  await tick(5000);
  assert.equal(hub.state, "connected", "a hub on this machine needs no network");
  dispatchEvent(new Event("offline"));
  await tick(5000);
  assert.equal(hub.state, "connecting");
  dispatchEvent(new Event("offline"));
  assert.equal(FakeSocket.all.length, 1, "it hastens no try");
  dispatchEvent(new Event("online"));
  await settle();
  assert.equal(FakeSocket.all.length, 2);
  await welcome();
  document.visibilityState = "hidden";
  dispatchEvent(new Event("offline"));
  await settle();
  assert.ok(FakeSocket.last.command("ping"), "in a hidden tab too");
  hub.disconnect();
  dispatchEvent(new Event("offline"));
  dispatchEvent(new Event("online"));
  assert.equal(FakeSocket.all.length, 2);
});

test("a tab that was frozen and is resumed asks a quiet link", async () => {
  const { socket } = await connected();
  document.dispatchEvent(new Event("resume"));
  await settle();
  assert.ok(socket.command("ping"));
});

test("subscribe: what is asked, what is told, and each publication once and in order", async () => {
  const { hub, socket } = await connected();
  const tagsFilter = { key: "kind", cmp: "eq", val: "goal" };
  const subscription = hub.subscribe("room", { recoverable: true, joinLeave: true, data: { x: 1 }, tagsFilter });
  const events = record(subscription, "subscribed", "publication", "join", "leave");
  await settle();
  assert.deepEqual(socket.command("subscribe").subscribe, {
    channel: "room", data: { x: 1 }, recoverable: true, join_leave: true, tf: tagsFilter,
  });
  const { id } = socket.command("subscribe");
  socket.receive(
    { id, subscribe: { recoverable: true, epoch: "e", offset: 4, data: "hi" } },
    { push: { channel: "room", pub: { data: "five", offset: 5, info: { user: "u", client: "k", conn_info: { name: "N" } } } } },
    { push: { channel: "room", pub: { data: "five", offset: 5 } } },
    { push: { channel: "room", join: { info: { user: "v", client: "l" } } } },
  );
  assert.deepEqual(names(events), ["subscribed", "publication", "join"]);
  assert.deepEqual(events[0][1], {
    channel: "room", recoverable: true, positioned: false, wasRecovering: false, recovered: false, data: "hi",
    streamPosition: { epoch: "e", offset: 4 },
  });
  assert.deepEqual(events[1][1].info, { user: "u", client: "k", connInfo: { name: "N" }, chanInfo: undefined });
});

test("after a reconnect every subscription goes in one frame, each with its position", async () => {
  const { hub, socket } = await connected();
  const rooms = Array.from({ length: 50 }, (_, index) => hub.subscribe(`room${index}`, { recoverable: true }));
  const events = record(rooms[0], "subscribing", "subscribed", "publication");
  await settle();
  socket.receive(...socket.commands.slice(1).map(({ id }) => ({ id, subscribe: { recoverable: true, epoch: "e", offset: 1 } })));
  socket.push("room0", { pub: { data: "two", offset: 2 } });
  socket.drop();
  assert.ok(rooms.every(({ state }) => state === "subscribing"));

  const next = await reconnected();
  assert.equal(next.frames.length, 2, "the connect, and all the rest");
  const asked = next.commands[1];
  assert.deepEqual(asked.subscribe, { channel: "room0", recoverable: true, recover: true, epoch: "e", offset: 2 });
  const publications = [{ data: "two", offset: 2 }, { data: "three", offset: 3 }, { data: "four", offset: 4 }];
  next.receive(
    { id: asked.id, subscribe: { recoverable: true, epoch: "e", offset: 4, was_recovering: true, recovered: true, publications } },
    { push: { channel: "room0", pub: { data: "four", offset: 4 } } },
    { push: { channel: "room0", pub: { data: "five", offset: 5 } } },
  );
  assert.deepEqual(names(events), ["subscribed", "publication", "subscribing", "subscribed", ...Array(3).fill("publication")]);
  assert.deepEqual(events.slice(4).map(([, { data }]) => data), ["three", "four", "five"]);
});

// A recovered reply has the position that the client came with, which its publications move.
const recovery = (from, ...offsets) => ({
  recoverable: true, was_recovering: true, recovered: true, epoch: "e", offset: from,
  publications: offsets.map((offset) => ({ offset })),
});
const offsets = (events) => events.map(([, { offset }]) => offset);

test("cut again right after a recovery: what was recovered is not asked for again", async () => {
  const { hub, socket } = await connected();
  const events = record(hub.subscribe("room", { recoverable: true }), "publication");
  await settle();
  socket.reply("subscribe", { recoverable: true, epoch: "e", offset: 1 });
  socket.drop();
  const second = await reconnected();
  second.reply("subscribe", recovery(1, 2, 3));
  second.drop();
  const third = await reconnected();
  assert.equal(third.command("subscribe").subscribe.offset, 3);
  third.reply("subscribe", recovery(3, 4));
  third.push("room", { pub: { offset: 4 } });
  assert.deepEqual(offsets(events), [2, 3, 4]);
  third.drop();
  const fourth = await reconnected();
  fourth.reply("subscribe", recovery(9));
  fourth.drop();
  assert.equal((await reconnected()).command("subscribe").subscribe.offset, 9, "what was not for this client is behind it");
});

test("cut again right after a recovery: so with server-side subscriptions", async () => {
  const { hub, socket } = await connected({}, { subs: { news: { recoverable: true, epoch: "e", offset: 1 } } });
  const events = record(hub, "publication");
  socket.drop();
  const second = await reconnected({ subs: { news: recovery(1, 2, 3) } });
  second.drop();
  const third = await reconnected({ subs: { news: recovery(3, 4) } });
  assert.equal(third.command("connect").connect.subs.news.offset, 3);
  third.push("news", { pub: { offset: 4 } });
  assert.deepEqual(offsets(events), [2, 3, 4]);
  third.drop();
  const fourth = await reconnected({ subs: { news: { recoverable: true, was_recovering: true, epoch: "new", offset: 1 } } });
  fourth.push("news", { pub: { offset: 2 } });
  assert.deepEqual(offsets(events), [2, 3, 4, 2], "another epoch begins anew");
});

test("a position that could not be recovered is replaced", async () => {
  const { hub, socket } = await connected();
  const subscription = hub.subscribe("room", { since: { epoch: "old", offset: 90 }, recoverable: true });
  const events = record(subscription, "subscribed", "publication");
  await settle();
  assert.equal(socket.command("subscribe").subscribe.offset, 90);
  const publications = [{ data: "three", offset: 3 }];
  socket.reply("subscribe", { recoverable: true, epoch: "new", offset: 3, was_recovering: true, publications });
  socket.push("room", { pub: { data: "four", offset: 4 } });
  assert.equal(events[0][1].recovered, false);
  assert.deepEqual(names(events), ["subscribed", "publication", "publication"]);
});

test("subscribe in a connected listener is sent once", async () => {
  const hub = new Hub(URL);
  hub.on("connected", () => hub.subscribe("room"));
  hub.connect();
  await settle();
  const socket = await welcome();
  assert.equal(socket.commands.filter(({ subscribe }) => subscribe).length, 1);
});

test("a listener that unsubscribes gets no more, and what it did not get is asked for again", async () => {
  const { hub, socket } = await connected();
  const subscription = hub.subscribe("room", { recoverable: true, since: { epoch: "e", offset: 0 } });
  const seen = [];
  subscription.on("publication", ({ offset }) => {
    seen.push(offset);
    if (offset === 1) subscription.unsubscribe();
  });
  await settle();
  socket.reply("subscribe", {
    recoverable: true, recovered: true, epoch: "e", offset: 2, publications: [{ offset: 1 }, { offset: 2 }],
  });
  assert.deepEqual(seen, [1]);
  subscription.subscribe();
  await settle();
  assert.equal(socket.command("subscribe").subscribe.offset, 1);
});

test("subscribe errors: temporary ones and 109 are tried again, another one ends it", async () => {
  const { hub, socket } = await connected();
  const tokens = ["t1", "t2"];
  const subscription = hub.subscribe("room", { getToken: async ({ channel }) => `${channel}-${tokens.shift()}` });
  const events = record(subscription, "error", "unsubscribed");
  await settle();
  assert.equal(socket.command("subscribe").subscribe.token, "room-t1");
  socket.refuse("subscribe", { code: 109, message: "token expired" });
  await tick(1000);
  assert.equal(socket.command("subscribe").subscribe.token, "room-t2");
  socket.refuse("subscribe", { code: 100, message: "internal", temporary: true });
  await tick(1500);
  socket.refuse("subscribe", { code: 103, message: "permission denied" });
  assert.deepEqual(names(events), ["error", "error", "error", "unsubscribed"]);
  assert.deepEqual(events.at(-1)[1], { channel: "room", code: 103, reason: "permission denied" });
});

test("what belongs to an earlier subscribe is not taken for the present one", async () => {
  const { hub, socket } = await connected();
  const subscription = hub.subscribe("room");
  const events = record(subscription, "subscribed", "publication", "error");
  await settle();
  const { id } = socket.command("subscribe");
  subscription.unsubscribe();
  subscription.subscribe();
  await settle();
  socket.receive({ id, subscribe: {} }, { push: { channel: "room", pub: { data: "old" } } });
  assert.equal(subscription.state, "subscribing");
  socket.drop();
  assert.deepEqual(events, [], "the broken link is the connection's news");
  await reconnected();
  FakeSocket.last.reply("subscribe", {});
  assert.equal(subscription.state, "subscribed");
});

test("a subscribe or unsubscribe that fails without a word means a new connection", async () => {
  const { hub, socket } = await connected({}, { ping: 0 });
  const subscription = hub.subscribe("room");
  await tick(5000);
  assert.ok(socket.isClosed);
  const next = await reconnected({ ping: 0 });
  next.reply("subscribe", {});
  subscription.unsubscribe();
  await settle();
  next.refuse("unsubscribe", { code: 100, message: "internal", temporary: true });
  assert.ok(next.isClosed);
  assert.equal(hub.state, "connecting");
});

test("an unsubscribe push: from 2500 it subscribes again, below it stops", async () => {
  const { hub, socket } = await connected();
  const subscription = hub.subscribe("room");
  await settle();
  socket.reply("subscribe", {});
  socket.push("room", { unsubscribe: { code: 2500, reason: "insufficient state" } });
  assert.equal(subscription.state, "subscribing");
  const before = socket.commands.length;
  await tick(1000);
  assert.equal(socket.commands.length, before + 1);
  socket.reply("subscribe", {});
  assert.equal(subscription.state, "subscribed");
  socket.push("room", { unsubscribe: { code: 2000, reason: "server unsubscribe" } });
  assert.equal(subscription.state, "unsubscribed");
});

test("a subscription's calls wait until it is there, and fail once it is not", async () => {
  const { hub, socket } = await connected();
  const subscription = hub.subscribe("room");
  const history = subscription.history({ limit: 2, reverse: true });
  const stats = subscription.presenceStats();
  await settle();
  assert.equal(socket.command("history"), undefined);
  socket.reply("subscribe", {});
  await settle();
  assert.deepEqual(socket.command("history").history, { channel: "room", limit: 2, reverse: true });
  socket.reply("history", { publications: [{ data: "a", offset: 2 }], epoch: "e", offset: 2 });
  socket.reply("presence_stats", { num_clients: 2, num_users: 1 });
  assert.equal((await history).publications[0].channel, "room");
  assert.deepEqual(await stats, { numClients: 2, numUsers: 1 });
  subscription.unsubscribe();
  await assert.rejects(subscription.publish(1), { message: "subscription unsubscribed" });
  assert.throws(() => { hub.subscribe("room"); hub.subscribe("room"); }, /unsubscribe first/);
});

test("tokens are renewed before their end, of the connection and of a subscription", async () => {
  let failures = 1;
  const getToken = async () => { if (failures-- > 0) throw new Error("502"); return "fresh"; };
  const { hub, socket, events } = await connected({ token: "t", getToken }, { ping: 0, expires: true, ttl: 60 });
  const subscription = hub.subscribe("room", { token: "s", getToken: async () => "fresh-s" });
  await settle();
  socket.reply("subscribe", { expires: true, ttl: 100 });
  await tick(54_000);
  assert.deepEqual(events.at(-1)[1].type, "refreshToken");
  await tick(10_000);
  assert.equal(socket.command("refresh").refresh.token, "fresh");
  socket.refuse("refresh", { code: 100, message: "internal", temporary: true });
  await tick(10_000);
  socket.reply("refresh", { expires: true, ttl: 60 });
  await tick(16_000);
  assert.deepEqual(socket.command("sub_refresh").sub_refresh, { channel: "room", token: "fresh-s" });
  socket.refuse("sub_refresh", { code: 103, message: "permission denied" });
  assert.equal(subscription.state, "unsubscribed");
});

test("a life of years does not overflow the timer", async () => {
  const { socket } = await connected({ token: "t", getToken: async () => "x" }, { ping: 0, expires: true, ttl: 1e8 });
  await tick(60_000);
  assert.equal(socket.command("refresh"), undefined);
});

test("server-side subscriptions: their events, and their positions in the next connect", async () => {
  const hub = new Hub(URL);
  const events = record(hub, "subscribed", "publication", "join", "unsubscribed", "message");
  hub.connect();
  await settle();
  const socket = await welcome({ subs: { news: { recoverable: true, epoch: "e", offset: 7 } } });
  socket.push("news", { pub: { data: 8, offset: 8 } });
  socket.push("alerts", { subscribe: {} });
  socket.push("alerts", { join: { info: { user: "u", client: "k" } } });
  socket.receive({ push: { message: { data: "hello" } } });
  socket.drop();
  await tick(20_000);
  FakeSocket.last.open();
  assert.deepEqual(FakeSocket.last.command("connect").connect.subs, { news: { recover: true, epoch: "e", offset: 8 } });
  FakeSocket.last.reply("connect", { client: "c", subs: { news: { recoverable: true, recovered: true, epoch: "e", offset: 9,
    publications: [{ data: 9, offset: 9 }] } } });
  FakeSocket.last.push("news", { pub: { data: 9, offset: 9 } });
  assert.deepEqual(events.map(([name, { channel, data }]) => [name, channel ?? data]), [
    ["subscribed", "news"], ["publication", "news"], ["subscribed", "alerts"], ["join", "alerts"], ["message", "hello"],
    ["unsubscribed", "alerts"], ["subscribed", "news"], ["publication", "news"],
  ]);
});

test("what is not JSON stops the client", async () => {
  const { hub, socket, events } = await connected();
  socket.onmessage({ data: "<html>" });
  assert.equal(hub.state, "disconnected");
  assert.deepEqual(events.at(-1)[1], { code: 2, reason: "bad protocol" });
});

test("endpoint: what is not the address of a hub throws, with the remedy", () => {
  for (const [url, remedy] of [
    ["127.0.0.1:9131", "http://127.0.0.1:9131"], ["localhost:9131/live", "http://localhost:9131/live"],
    ["hub.example:443", "https://hub.example:443"], ["ftp://h", "https://hub.example"], ["", "https://hub.example"],
    [undefined, "https://hub.example"], [null, "https://hub.example"], [8000, "https://hub.example"],
  ]) {
    assert.throws(() => new Hub(url), (error) => error instanceof TypeError && error.message.includes(remedy), url);
  }
  assert.equal(endpoint(new globalThis.URL("https://h/live")), "wss://h/live/connection/websocket");
});

test("an option that is a number, and is none, throws; one that is undefined is absent", async () => {
  for (const options of [{ timeout: "5s" }, { minReconnectDelay: -1 }, { maxReconnectDelay: NaN }, { outbox: { maxAge: "1m" } }]) {
    assert.throws(() => new Hub(URL, options), { name: "TypeError", message: /is a number from 0 on, not/ });
  }
  const { hub, socket } = await connected({ timeout: undefined, name: undefined, outbox: { maxAge: undefined } });
  assert.equal(socket.command("connect").connect.name, "hub.js");
  const sent = hub.publish("c", 1);
  await tick(4000);
  socket.reply("publish", {});
  await sent;
});

test("unknown options and events throw, and the error names the nearest known one", async () => {
  for (const [options, message] of [
    [{ gettoken: async () => "t" }, /^Hub has no option gettoken: did you mean getToken\?/],
    [{ getTokn: async () => "t" }, /did you mean getToken\?/],
    [{ withCredentials: true }, /did you mean credentials\?/],
    [{ maxReconectDelay: 1 }, /did you mean maxReconnectDelay\?/],
    [{ timeoutMs: 1 }, /did you mean timeout\?/],
    [{ outbox: { maxMessage: 1 } }, /^outbox has no option maxMessage: did you mean maxMessages\?/],
    [{ outbox: 100 }, /the options of outbox are an object/],
  ]) {
    assert.throws(() => new Hub(URL, options), (error) => error instanceof TypeError && message.test(error.message));
  }
  assert.throws(() => new Hub(URL, "token"), TypeError);
  const hub = new Hub(URL);
  assert.throws(() => hub.on("conected", () => {}), { name: "TypeError", message: /no event conected: did you mean connected\?/ });
  assert.throws(() => hub.subscribe("room", { recover: true }), /no option recover: did you mean recoverable\?/);
  assert.throws(() => hub.subscribe("room").on("publications", () => {}), /did you mean publication\?/);
  await assert.rejects(hub.subscribe("other").history({ limt: 1 }), /did you mean limit\?/);
  assert.throws(() => hub.subscribe(), TypeError);
  hub.subscribe("third", { recoverable: true });
});

test("a connection that is not made: the error says what was tried and what came back", async () => {
  for (const [readyz, direct, expected] of [
    [new TypeError("no network"), null, "no server answers: start the hub, or correct the port"],
    [{ status: 404, headers: new Headers() }, null, "HTTP 404: no hub lives at this path: add the path that it is installed at"],
    [{ status: 200 }, { status: 403, text: async () => "this origin is not in client.allowed_origins\n" },
      "HTTP 403: this origin is not in client.allowed_origins"],
    [{ status: 200 }, { status: 426 }, "the hub answers HTTP, but no WebSocket passed"],
  ]) {
    globalThis.fetch = async (url) => {
      const answer = String(url).endsWith("/readyz") ? readyz : direct;
      if (answer instanceof Error) throw answer;
      return answer;
    };
    const hub = new Hub(URL);
    const events = record(hub, "error");
    hub.connect();
    await settle();
    FakeSocket.last.drop();
    await settle();
    const [[, { type, error, url, transport, answer }]] = events;
    assert.deepEqual([type, url, transport, answer], ["transport", URL, "websocket", expected]);
    assert.ok(error.message.includes(URL) && error.message.includes(expected));
    assert.equal(error.temporary, true);
    hub.disconnect();
  }
});

test("a refusal: the error has its code and its sentence, before the client stops", async () => {
  const hub = new Hub(URL);
  const events = record(hub, "error", "disconnected");
  hub.connect();
  await settle();
  FakeSocket.last.open();
  FakeSocket.last.refuse("connect", { code: 101, message: "unauthorized" });
  assert.deepEqual(names(events), ["error", "disconnected"]);
  const [, { type, error, url, answer }] = events[0];
  assert.deepEqual([type, error.code, error.message, url], ["connect", 101, "unauthorized", URL]);
  assert.equal(answer, "error 101: unauthorized");
  const other = await connected();
  other.socket.drop(3500, "invalid token");
  assert.equal(other.events.at(-2)[1].error.code, 3500);
  assert.equal(other.events.at(-2)[1].answer, "close code 3500: invalid token");
});
