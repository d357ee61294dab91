/** A room of the chat page: its messages, who is there, and what becomes of each message that is sent. */

const HISTORY_LIMIT = 50;
const GROUP_MS = 5 * 60_000;
const NEAR_PX = 80;
const EPOCH_SPAN = 1e12; // offsets of one epoch stay below it, so that (epoch, offset) sorts as one number
const HUES = ["#b3261e", "#0b5cad", "#00703a", "#85268f", "#9a4400", "#006a75", "#5647c4", "#9c1a58"];

const $ = (id) => document.getElementById(id);
const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat([], { day: "numeric", month: "short" });

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function bullet(user, name) {
  const made = element("span", "bullet", Array.from(name)[0]?.toUpperCase() ?? "?");
  let sum = 0;
  for (const char of user) sum = (sum * 31 + char.codePointAt(0)) >>> 0;
  made.style.setProperty("--hue", HUES[sum % HUES.length]);
  made.setAttribute("aria-hidden", "true");
  return made;
}

function nameOf(info) {
  return String(info?.connInfo?.name ?? info?.user ?? "") || (info ? "Guest" : "Server");
}

function textOf(data) {
  const text = data?.text ?? data;
  return typeof text === "string" ? text : JSON.stringify(text);
}

function timeText(time) {
  const date = new Date(time);
  const today = date.toDateString() === new Date().toDateString();
  return today ? clock.format(date) : `${day.format(date)} ${clock.format(date)}`;
}

/** What to do about a message of one's own, until it came back from the hub. */
class Draft {
  constructor(id, text, item) {
    Object.assign(this, { id, text, item, isBack: false });
  }

  show(state) {
    this.item.classList.remove("sending", "failed");
    this.item.classList.add(state);
    const status = this.item.querySelector(".status");
    if (state === "failed") status.setAttribute("role", "alert"); // only this is worth an interruption
    else status.removeAttribute("role");
    status.textContent = { sending: "Sending…", delivered: "Delivered", failed: "Not delivered." }[state];
    return status;
  }
}

export class Room {
  #subscription;
  #user;
  #userName;
  #isLoaded = false;
  #randomId;
  #onMessage;
  #epoch = null;
  #generation = 0;
  #newest = 0; // offset
  #seen = new Set(); // offsets of this epoch
  #ids = new Set();
  #drafts = new Map();
  #people = new Map();
  #list = $("messages");

  constructor({ name, subscription, user, userName, randomId, onMessage }) {
    this.name = name;
    this.#user = user;
    this.#userName = userName;
    this.#randomId = randomId;
    this.#onMessage = onMessage;
    this.#list.replaceChildren();
    $("log").setAttribute("aria-busy", "true");
    $("log").onscroll = () => { if (this.#isAtEnd()) $("newest").hidden = true; };
    $("newest").onclick = () => this.#scroll();
    $("newest").hidden = $("empty").hidden = true;
    this.#renderPeople();
    this.#subscription = subscription
      .on("subscribed", (context) => this.#subscribed(context))
      .on("publication", (publication) => this.#live(publication))
      .on("join", ({ info }) => this.#present(() => this.#people.set(info.client, info)))
      .on("leave", ({ info }) => this.#present(() => this.#people.delete(info.client)))
      .on("unsubscribed", ({ code, reason }) => {
        if (code) this.#notice(`This room is closed: ${reason}`, Infinity);
      });
  }

  leave() { this.#subscription.unsubscribe(); }

  /** @param {string} text */
  send(text) {
    const id = this.#randomId();
    const item = this.#item({ text, user: this.#user, name: this.#userName, time: Date.now() });
    const draft = new Draft(id, text, item);
    this.#drafts.set(id, draft);
    this.#insert(item, Infinity);
    this.#scroll();
    this.#deliver(draft);
  }

  async #deliver(draft) {
    draft.show("sending");
    try {
      // The same key at each try, so that the hub publishes the message once.
      await this.#subscription.publish({ id: draft.id, text: draft.text }, { idempotencyKey: draft.id });
      draft.show("delivered");
    } catch {
      if (!draft.isBack) this.#failed(draft);
    }
  }

  #failed(draft) {
    const retry = element("button", "", "Retry");
    retry.type = "button";
    retry.setAttribute("aria-label", `Retry: ${draft.text}`);
    retry.addEventListener("click", () => {
      $("text").focus();
      this.#deliver(draft);
    });
    draft.show("failed").append(" ", retry);
  }

  #subscribed({ recovered, streamPosition }) {
    const epoch = streamPosition?.epoch ?? "";
    if (this.#epoch !== null && this.#epoch !== epoch) {
      this.#generation++;
      this.#seen.clear();
      this.#newest = 0;
      this.#notice("The hub has started anew. Messages above are those that you saw.", this.#order(0));
    }
    this.#epoch = epoch;
    if (!recovered || !this.#isLoaded) this.#loadHistory();
    this.#loadPeople();
  }

  async #loadHistory() {
    const newest = this.#newest;
    try {
      const { publications } = await this.#subscription.history({ limit: HISTORY_LIMIT, reverse: true });
      const oldest = publications.at(-1)?.offset;
      const isGap = newest && oldest > newest + 1;
      if (isGap) this.#notice("Some messages were missed here.", this.#order(newest + 0.5));
      for (const publication of publications.reverse()) this.#show(publication);
      this.#isLoaded = true;
      if (!newest) this.#scroll();
    } catch {
      return; // the next subscribed event tries again
    } finally {
      $("log").setAttribute("aria-busy", "false");
    }
    this.#renderEmpty();
  }

  async #loadPeople() {
    try {
      const { clients } = await this.#subscription.presence();
      this.#present(() => { this.#people = new Map(Object.entries(clients)); });
    } catch { /* as above */ }
  }

  #live(publication) {
    const atEnd = this.#isAtEnd();
    if (!this.#show(publication)) return;
    this.#onMessage();
    if (atEnd) this.#scroll();
    else $("newest").hidden = false;
  }

  /** Whether it is somebody's message that was not there yet. */
  #show({ data, info, offset = 0, time = Date.now() }) {
    if (offset && this.#seen.has(offset)) return false;
    this.#seen.add(offset);
    this.#newest = Math.max(this.#newest, offset);
    const mine = info?.user === this.#user;
    const id = mine && data?.id;
    const order = offset ? this.#order(offset) : this.#order(this.#newest);
    const draft = this.#drafts.get(id);
    if (draft) {
      this.#drafts.delete(id);
      this.#ids.add(id);
      draft.isBack = true;
      draft.show("delivered");
      this.#insert(draft.item, order);
      return false;
    }
    if (id && this.#ids.has(id)) return false;
    this.#ids.add(id);
    this.#insert(this.#item({ text: textOf(data), user: info?.user ?? "", name: nameOf(info), time }), order);
    return !mine;
  }

  #order(offset) { return this.#generation * EPOCH_SPAN + offset; }

  #item({ text, user, name, time }) {
    const item = element("li", user === this.#user ? "message mine" : "message");
    const when = element("time", "", timeText(time));
    when.dateTime = new Date(time).toISOString();
    Object.assign(item.dataset, { user, time });
    const body = element("div", "text", text);
    body.dir = "auto";
    const who = element("span", "who", user === this.#user ? "You" : name);
    item.append(bullet(user, name), who, when, body, element("span", "status"));
    return item;
  }

  #notice(text, order) {
    this.#insert(element("li", "notice", text), order);
  }

  #insert(item, order) {
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

  /** Messages of one person in a row share one name. */
  #group(item) {
    const above = item.previousElementSibling?.dataset ?? {};
    const { user, time } = item.dataset;
    item.classList.toggle("follows", time !== undefined && above.user === user && time - above.time < GROUP_MS);
  }

  #isAtEnd() {
    const log = $("log");
    return log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_PX;
  }

  #scroll() {
    $("log").scrollTop = $("log").scrollHeight;
    $("newest").hidden = true;
  }

  #present(change) {
    change();
    this.#renderPeople();
  }

  #renderPeople() {
    const users = new Map();
    for (const info of this.#people.values()) {
      const person = users.get(info.user) ?? { user: info.user, name: nameOf(info), windows: 0 };
      users.set(info.user, { ...person, windows: person.windows + 1 });
    }
    const isMe = ({ user }) => user === this.#user;
    const people = [...users.values()].sort((a, b) => isMe(b) - isMe(a) || a.name.localeCompare(b.name));
    $("people").replaceChildren(...people.map((person) => {
      const item = element("li", "person");
      item.append(bullet(person.user, person.name), element("span", "", person.name));
      const notes = [isMe(person) && "you", person.windows > 1 && `${person.windows} windows`].filter(Boolean);
      if (notes.length) item.append(" ", element("small", "", notes.join(", ")));
      return item;
    }));
    $("count").textContent = people.length;
  }

  #renderEmpty() {
    const isEmpty = !this.#list.childElementCount;
    $("empty").hidden = !isEmpty;
    $("empty").replaceChildren(
      element("strong", "", "Nothing said yet"),
      "Open this page in another window, and what you write here appears there.",
    );
  }
}
