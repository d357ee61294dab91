/** The list of a room's messages: their order, and what the reader sees of it. */

import { $, bullet, element } from "./elements.js";
import { withLinks } from "./links.js";

const GROUP_MS = 5 * 60_000;
const NEAR_PX = 80;

const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat([], { day: "numeric", month: "short" });

function timeText(time) {
  const date = new Date(time);
  const today = date.toDateString() === new Date().toDateString();
  return today ? clock.format(date) : `${day.format(date)} ${clock.format(date)}`;
}

let resized = () => {};
new ResizeObserver(() => resized()).observe($("log"));

export class MessageList {
  #list = $("messages");
  #user;
  #staysAtEnd = true;

  /** @param {string} user of this page */
  constructor(user) {
    this.#user = user;
    this.#list.replaceChildren();
    $("log").setAttribute("aria-busy", "true");
    $("log").onscroll = () => {
      this.#staysAtEnd = this.isAtEnd();
      if (this.#staysAtEnd) $("newest").hidden = true;
    };
    resized = () => { if (this.#staysAtEnd) this.scroll(); };
    $("newest").onclick = () => this.scroll();
    $("newest").hidden = $("empty").hidden = true;
  }

  /** An item for a message, which is not in the list yet. */
  item({ text, user, name, time }) {
    const item = element("li", user === this.#user ? "message mine" : "message");
    const when = element("time", "", timeText(time));
    when.dateTime = new Date(time).toISOString();
    Object.assign(item.dataset, { user, time });
    const body = element("div", "text", withLinks(text));
    body.dir = "auto";
    const who = element("span", "who", user === this.#user ? "You" : name);
    item.append(bullet(user, name), who, when, body, element("span", "status"));
    return item;
  }

  /** Put an item where its order says, and there it stays. */
  insert(item, order) {
    const after = item.nextElementSibling;
    item.remove();
    item.order = order;
    let before = this.#list.lastElementChild;
    while (before && before.order > order) before = before.previousElementSibling;
    if (before) before.after(item);
    else this.#list.prepend(item);
    for (const each of [item, item.nextElementSibling, after]) if (each) this.#group(each);
    $("empty").hidden = true;
  }

  notice(text, order) { this.insert(element("li", "notice", text), order); }

  /** Say that a user joined or left. All that happens between two messages is one line. */
  change(user, name, isHere, order) {
    const atEnd = this.isAtEnd();
    let line = this.#list.lastElementChild;
    if (!line?.changes || line.order !== order) {
      line = element("li", "change");
      line.changes = new Map();
      this.insert(line, order);
    }
    const was = line.changes.has(user);
    line.changes.set(user, `${name} ${isHere ? (was ? "is back" : "joined") : "left"}`);
    line.textContent = [...line.changes.values()].join(", ");
    if (atEnd) this.scroll();
  }

  /** Say that history is loaded. */
  loaded() {
    $("log").setAttribute("aria-busy", "false");
    $("empty").hidden = this.#list.childElementCount > 0;
  }

  isAtEnd() {
    const log = $("log");
    return log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_PX;
  }

  scroll() {
    $("log").scrollTop = $("log").scrollHeight;
    $("newest").hidden = true;
  }

  /** Messages of one person in a row share one name. */
  #group(item) {
    const above = item.previousElementSibling?.dataset ?? {};
    const { user, time } = item.dataset;
    item.classList.toggle("follows", time !== undefined && above.user === user && time - above.time < GROUP_MS);
  }
}
