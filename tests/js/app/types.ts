// What the types of the package allow and refuse. The compiler is the test.

import { Hub, HubError, MessageExpiredError, UnauthorizedError, type Publication, type StreamPosition } from "hub-realtime";
import * as react from "hub-realtime/react";
import * as svelte from "hub-realtime/svelte";
import * as vue from "hub-realtime/vue";
import { ref } from "vue";

interface Message { text: string }

const getToken = async ({ channel }: { channel?: string }) => {
  if (channel === "closed") throw new UnauthorizedError("no");
  return "token";
};
const hub = new Hub(new URL("https://hub.example"), {
  getToken, data: { name: "Ann" }, credentials: "include", outbox: { maxMessages: 1, maxAge: 1 },
});
// @ts-expect-error there is no such option
new Hub("https://hub.example", { gettoken: getToken });
// @ts-expect-error cookies have three choices
new Hub("https://hub.example", { credentials: true });
// @ts-expect-error a hub has an address
new Hub();

const state: "disconnected" | "connecting" | "connected" = hub.state;
// @ts-expect-error the state is the hub's to change
hub.state = state;
hub.on("connecting", ({ attempt, delay, code, reason }) => { const wait: number = attempt + delay + code + reason.length; void wait; })
  .on("error", ({ error, answer }) => { if (error instanceof HubError && error.temporary) answer.trim(); });
// @ts-expect-error there is no such event
hub.on("conected", () => {});

const room = hub.subscribe<Message>("chat:lobby", { rewind: 10, joinLeave: true });
room.on("publication", ({ data, offset }: Publication<Message>) => { data.text.trim(); void (offset ?? 0); });
// @ts-expect-error a message has no such field
room.on("publication", ({ data }) => data.txt);
// @ts-expect-error and must have a text
room.publish({ txt: "hello" });
// @ts-expect-error there is no such option
hub.subscribe("chat:lobby", { recover: true });
const sent: Promise<void> = room.publish({ text: "hello" }, { idempotencyKey: "k" });
sent.catch((error) => { if (error instanceof MessageExpiredError) error.code.toFixed(); });

const position: Promise<StreamPosition> = room.history({ limit: 0 });
const people: Promise<string[]> = room.presence().then(({ clients }) => Object.values(clients).map(({ user }) => user));
const sum: Promise<number> = hub.rpc<number>("sum", [1, 2]).then(({ data }) => data);
void [position, people, sum];

export function Component() {
  const text: string | undefined = react.useSubscription<Message>(null).publications.at(-1)?.data.text;
  const names: string[] = react.usePresence("chat:lobby").clients.map(({ user }) => user);
  return `${text}${names}${react.useConnectionState() === "connected"}${react.useHub().url}`;
}

export function setup() {
  const { publications, publish } = vue.useSubscription<Message>(() => "chat:lobby", { keep: 5 });
  const text: string | undefined = publications.value.at(-1)?.data.text;
  // @ts-expect-error a message must have a text
  publish({ txt: text });
  return [vue.usePresence(ref("chat:lobby")).clients.value, vue.useConnectionState().value === "connected"];
}

svelte.useSubscription<Message>("chat:lobby").subscribe(({ publications }) => publications[0]?.data.text.trim());
svelte.useConnectionState().subscribe((now) => now === "connected");
// @ts-expect-error a hub is needed
svelte.setHub(null);
