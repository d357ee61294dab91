/** The chat page: one room at a time, over `hub.js`. */

import "./code.js";
import { $, bullet } from "./elements.js";
import { actAsGuest, guest } from "./guest.js";
import { Hub } from "./hub.js";
import { network } from "./network.js";
import { randomId, storedName, storeName, user } from "./person.js";
import { Recovery } from "./recovery.js";
import { Room } from "./room.js";
import { channelOf, roomInHash, roomName, showRooms } from "./rooms.js";

const SENDING_MS = 15_000; // then the page offers to try again

const hub = new Hub(new URL("..", import.meta.url).href, { name: "chat", outbox: { maxAge: SENDING_MS } });
const recovery = new Recovery(hub);
let name = storedName();
let room = null;
let retryAt = 0;
let unread = 0;

function connect() {
  hub.setData({ name, user }); // the server's connect handler reads them
  hub.connect();
}

function open(next) {
  if (room?.name === next) return;
  room?.leave();
  $("room").textContent = next;
  showRooms(next);
  renderTitle();
  const subscription = hub.subscribe(channelOf("chat", next), { recoverable: true, joinLeave: true });
  const typing = hub.subscribe(channelOf("typing", next));
  recovery.follow(subscription);
  room = new Room({ name: next, subscription, typing, user, userName: name, randomId, onMessage: heard });
  $("text").placeholder = `Message ${next}`;
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
    if (network.isCut) text = "Network cut";
    else if (!navigator.onLine) text = "Offline, waiting for the network";
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
  $("self").replaceChildren(bullet(user, name), name);
  $("you").textContent = name;
  connect();
  open(roomInHash());
  $("text").focus();
}

function togglePanel(wanted) {
  $("panel").classList.toggle("open", wanted);
  $("panel-toggle").setAttribute("aria-expanded", String($("panel").classList.contains("open")));
}

function toggleGuest() {
  if (guest.isOpen) guest.close();
  else guest.open();
  renderGuest();
}

function renderGuest() {
  $("chat").classList.toggle("has-guest", guest.isOpen);
  $("second").textContent = guest.isOpen ? `Close ${guest.name}` : "Add a second person";
}

function toggleNetwork() {
  if (network.isCut) recovery.restore();
  else recovery.cut();
  $("meanwhile").textContent = `Let ${guest.choose()} send 3 messages`;
  $("network").textContent = network.isCut ? "Restore my network" : "Cut my network";
  $("network").toggleAttribute("data-cut", network.isCut);
  renderState();
}

async function sendMeanwhile() {
  const sent = guest.say([
    "Are you there?",
    "The hub keeps this message until you are back.",
    `What a backend can ask of the hub: ${new URL("api/docs", location.href)}`,
  ]);
  renderGuest();
  await sent;
  $("network").focus();
}

$("entry-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = $("entry-name").value.trim();
  if (!given) return;
  if (given !== name) hub.disconnect(); // a name is said at connect
  name = storeName(given);
  location.hash = encodeURIComponent(roomName($("entry-room").value));
  enter();
});

$("entry").addEventListener("keydown", ({ key }) => { if (key === "Escape" && room) enter(); });
$("rename").addEventListener("click", showEntry);
$("reconnect").addEventListener("click", () => hub.connect());
$("panel-toggle").addEventListener("click", () => togglePanel());
$("second").addEventListener("click", toggleGuest);
$("network").addEventListener("click", toggleNetwork);
$("meanwhile").addEventListener("click", sendMeanwhile);
$("recovery-close").addEventListener("click", () => {
  $("recovery").hidden = true;
  $("network").focus();
});
addEventListener("message", ({ source, data }) => {
  if (source !== $("guest").contentWindow || !data.isClosed) return;
  guest.close();
  renderGuest();
  $("second").focus();
});
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
  resize();
  $("text").focus();
});

$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  }
});

$("text").addEventListener("input", () => {
  resize();
  room.typing.tell($("text").value.trim() !== "");
});

function resize() {
  $("text").style.height = "auto";
  $("text").style.height = `${$("text").scrollHeight + 3}px`;
}

addEventListener("hashchange", () => {
  togglePanel(false);
  guest.follow();
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
actAsGuest((text) => room.send(text));

if (name) enter();
else showEntry();
renderTitle();
