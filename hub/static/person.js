/** Who uses this page: the person whom the browser remembers, or a second one, whom the address names (`?as=Zoe`). */

const GUEST_CHARS_MAX = 20;

/** The name of the second person; empty where this page is the first person's. */
export const guestName = Array.from(new URLSearchParams(location.search).get("as")?.trim() ?? "")
  .slice(0, GUEST_CHARS_MAX).join("");

const id = stored("hub.user") || store("hub.user", randomId());

export const user = guestName ? `${id}-${guestName}` : id;

/** Storage may be switched off; then everything lasts as long as the page. */
export function stored(key) {
  try { return localStorage.getItem(key) ?? ""; } catch { return ""; }
}

export function store(key, value) {
  try { localStorage.setItem(key, value); } catch { /* as above */ }
  return value;
}

export function storedName() { return guestName || stored("hub.name"); }

/** @param {string} name that the person chose, which the browser remembers of the first person alone */
export function storeName(name) { return guestName ? name : store("hub.name", name); }

export function randomId() {
  // crypto.randomUUID is missing where a page came over plain HTTP from another machine.
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
