/** The chat page: one room at a time, over `hub.js`. */

import { Hub } from "./hub.js";
import { Room } from "./room.js";

const ROOMS_KEPT = 6;
const SENDING_MS = 15_000; // then the page offers to try again
const NOT_IN_CHANNELS = /[*'()]/g; // what encodeURIComponent leaves and a channel's name may not hold

const $ = (id) => document.getElementById(id);
const hub = new Hub(new URL("..", import.meta.url).href, { name: "chat", outbox: { maxAge: SENDING_MS } });
const user = stored("hub.user") || store("hub.user", randomId());
let name = stored("hub.name");
let room = null;
let retryAt = 0;
let unread = 0;

/** Storage may be switched off; then everything lasts as long as the page. */
function stored(key) {
  try { return localStorage.getItem(key) ?? ""; } catch { return ""; }
}

function store(key, value) {
  try { localStorage.setItem(key, value); } catch { /* as above */ }
  return value;
}

function randomId() {
  // crypto.randomUUID is missing where a page came over plain HTTP from another machine.
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The tidied name of a room, short enough for a channel's name in any script. */
function roomName(text) {
  const tidy = (text.toWellFormed?.() ?? text).trim().toLowerCase().replace(/^#+/, "").replace(/\s+/g, "-");
  return Array.from(tidy).slice(0, 20).join("") || "lobby";
}

function roomInHash() {
  try { return roomName(decodeURIComponent(location.hash.slice(1))); } catch { return "lobby"; }
}

function channelOf(roomName) {
  const code = (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`;
  return `chat:${encodeURIComponent(roomName).replace(NOT_IN_CHANNELS, code)}`;
}

function open(next) {
  if (room?.name === next) return;
  room?.leave();
  const kept = [next, ...stored("hub.rooms").split("\n").filter((other) => other && other !== next)];
  store("hub.rooms", kept.slice(0, ROOMS_KEPT).join("\n"));
  $("room").textContent = next;
  renderRooms(kept.slice(0, ROOMS_KEPT), next);
  renderTitle();
  const subscription = hub.subscribe(channelOf(next), { recoverable: true, joinLeave: true });
  room = new Room({ name: next, subscription, user, userName: name, randomId, onMessage: heard });
  $("text").placeholder = `Message ${next}`;
}

function renderRooms(names, current) {
  $("rooms").replaceChildren(...[...new Set([...names, "lobby"])].sort().map((each) => {
    const link = document.createElement("a");
    link.href = `#${encodeURIComponent(each)}`;
    link.textContent = each;
    if (each === current) link.setAttribute("aria-current", "page");
    const item = document.createElement("li");
    item.append(link);
    return item;
  }));
}

function heard() {
  if (document.hidden) unread++;
  renderTitle();
}

function renderTitle() {
  document.title = `${unread ? `(${unread}) ` : ""}${roomInHash()} – Hub chat`;
}

function renderState() {
  let text = "Connected";
  if (hub.state === "connecting") {
    const seconds = Math.ceil((retryAt - Date.now()) / 1000);
    if (!navigator.onLine) text = "Offline, waiting for the network";
    else if (seconds > 0) text = `Reconnecting in ${seconds} s`;
    else text = retryAt ? "Reconnecting…" : "Connecting…";
  } else if (hub.state === "disconnected") {
    text = "Disconnected";
  }
  $("state").dataset.state = hub.state;
  $("state-text").textContent = text;
  // Spoken once for each change, and not for each second.
  const spoken = text.replace(/(ing) in .*|…$/, "$1");
  if ($("state-spoken").textContent !== spoken) $("state-spoken").textContent = spoken;
  $("reconnect").hidden = hub.state !== "disconnected";
}

function showEntry() {
  $("entry-name").value = name;
  $("entry-room").value = room?.name ?? roomInHash();
  $("chat").hidden = true;
  $("entry").hidden = false;
  $("entry-name").focus();
}

function enter() {
  $("entry").hidden = true;
  $("chat").hidden = false;
  $("you").textContent = name;
  hub.setData({ name, user });
  hub.connect();
  open(roomInHash());
  $("text").focus();
}

function togglePanel(wanted) {
  $("panel").classList.toggle("open", wanted);
  $("panel-toggle").setAttribute("aria-expanded", String($("panel").classList.contains("open")));
}

$("entry-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = $("entry-name").value.trim();
  if (!given) return;
  if (given !== name) hub.disconnect(); // a name is said at connect
  name = store("hub.name", given);
  location.hash = encodeURIComponent(roomName($("entry-room").value));
  enter();
});

$("entry").addEventListener("keydown", ({ key }) => { if (key === "Escape" && room) enter(); });
$("rename").addEventListener("click", showEntry);
$("reconnect").addEventListener("click", () => hub.connect());
$("panel-toggle").addEventListener("click", () => togglePanel());
addEventListener("keydown", ({ key }) => {
  if (key === "Escape" && $("panel").classList.contains("open")) {
    togglePanel(false);
    $("panel-toggle").focus();
  }
});

$("go").addEventListener("submit", (event) => {
  event.preventDefault();
  location.hash = encodeURIComponent(roomName($("go-room").value));
  $("go-room").value = "";
});

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  room.send(text);
  $("text").value = "";
  $("text").dispatchEvent(new Event("input"));
  $("text").focus();
});

$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  }
});

$("text").addEventListener("input", ({ target }) => {
  target.style.height = "auto";
  target.style.height = `${target.scrollHeight + 3}px`;
});

addEventListener("hashchange", () => {
  togglePanel(false);
  if (!$("chat").hidden) open(roomInHash());
});
document.addEventListener("visibilitychange", () => {
  unread = 0;
  renderTitle();
});
for (const event of ["online", "offline"]) addEventListener(event, renderState);
for (const event of ["connecting", "connected", "disconnected"]) {
  hub.on(event, ({ attempt, delay }) => {
    retryAt = attempt ? Date.now() + delay : 0;
    renderState();
  });
}
setInterval(renderState, 500);

if (name) enter();
else showEntry();
renderTitle();
