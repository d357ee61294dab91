/** The rooms of the chat page: their names, their channels, and the list of those that the browser remembers. */

import { $, element } from "./elements.js";
import { store, stored } from "./person.js";

const ROOMS_KEPT = 6;
const NOT_IN_CHANNELS = /[*'()]/g; // what encodeURIComponent leaves and a channel's name may not hold

/** The tidied name of a room, short enough for a channel's name in any script. */
export function roomName(text) {
  const tidy = (text.toWellFormed?.() ?? text).trim().toLowerCase().replace(/^#+/, "").replace(/\s+/g, "-");
  return Array.from(tidy).slice(0, 20).join("") || "lobby";
}

/** The room that the page's address names. */
export function roomInHash() {
  try { return roomName(decodeURIComponent(location.hash.slice(1))); } catch { return "lobby"; }
}

/** @param {"chat" | "typing"} namespace @param {string} room */
export function channelOf(namespace, room) {
  const code = (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`;
  return `${namespace}:${encodeURIComponent(room).replace(NOT_IN_CHANNELS, code)}`;
}

/** Show the rooms that were visited last, with the present one marked, and remember it. */
export function showRooms(current) {
  const others = stored("hub.rooms").split("\n").filter((other) => other && other !== current);
  const kept = [current, ...others].slice(0, ROOMS_KEPT);
  store("hub.rooms", kept.join("\n"));
  $("rooms").replaceChildren(...[...new Set([...kept, "lobby"])].sort().map((each) => {
    const link = element("a", "", each);
    link.href = `#${encodeURIComponent(each)}`;
    if (each === current) link.setAttribute("aria-current", "page");
    return element("li", "", link);
  }));
}
