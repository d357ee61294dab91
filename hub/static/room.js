/** A room of the chat page: its messages, and what becomes of each message that is sent. */

import { $, button, nameOf } from "./elements.js";
import { MessageList } from "./messages.js";
import { People } from "./people.js";
import { Typing } from "./typing.js";

const HISTORY_LIMIT = 50;
const EPOCH_SPAN = 1e12; // offsets of one epoch stay below it, so that (epoch, offset) sorts as one number

function textOf(data) {
  const text = data?.text ?? data;
  return typeof text === "string" ? text : JSON.stringify(text);
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
  #list;

  constructor({ name, subscription, typing, user, userName, randomId, onMessage }) {
    this.name = name;
    this.#user = user;
    this.#userName = userName;
    this.#randomId = randomId;
    this.#onMessage = onMessage;
    this.#list = new MessageList(user);
    this.typing = new Typing(typing, user);
    this.people = new People(user, (...change) => this.#list.change(...change, this.#order(this.#newest)));
    this.people.follow(subscription);
    this.#subscription = subscription;
    this.#follow(subscription);
  }

  #follow(subscription) {
    subscription
      .on("subscribed", (context) => this.#subscribed(context))
      .on("publication", (publication) => this.#live(publication))
      .on("unsubscribed", ({ code, reason }) => {
        if (code) this.#list.notice(`This room is closed: ${reason}`, Infinity);
      });
  }

  leave() {
    this.#subscription.unsubscribe();
    this.typing.leave();
  }

  /** @param {string} text */
  send(text) {
    const id = this.#randomId();
    const item = this.#list.item({ text, user: this.#user, name: this.#userName, time: Date.now() });
    const draft = new Draft(id, text, item);
    this.#drafts.set(id, draft);
    this.#list.insert(item, Infinity);
    this.#list.scroll();
    this.typing.sent();
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
    const retry = button("Retry", () => {
      $("text").focus();
      this.#deliver(draft);
    });
    retry.setAttribute("aria-label", `Retry: ${draft.text}`);
    draft.show("failed").append(" ", retry);
  }

  #subscribed({ recovered, streamPosition }) {
    const epoch = streamPosition?.epoch ?? "";
    if (this.#epoch !== null && this.#epoch !== epoch) {
      this.#generation++;
      this.#seen.clear();
      this.#newest = 0;
      this.#list.notice("The hub has started anew. Messages above are those that you saw.", this.#order(0));
    }
    this.#epoch = epoch;
    if (!recovered || !this.#isLoaded) this.#loadHistory();
  }

  async #loadHistory() {
    const newest = this.#newest;
    try {
      const { publications } = await this.#subscription.history({ limit: HISTORY_LIMIT, reverse: true });
      if (this.#subscription.state === "unsubscribed") return; // the user has left the room
      const oldest = publications.at(-1)?.offset;
      const isGap = newest && oldest > newest + 1;
      if (isGap) this.#list.notice("Some messages were missed here.", this.#order(newest + 0.5));
      for (const publication of publications.reverse()) this.#show(publication);
      this.#isLoaded = true;
      if (!newest) this.#list.scroll();
    } catch {
      return; // the next subscribed event tries again
    }
    this.#list.loaded();
  }

  #live(publication) {
    const atEnd = this.#list.isAtEnd();
    this.typing.stopped(publication.info?.user);
    if (!this.#show(publication)) return;
    this.#onMessage();
    if (atEnd) this.#list.scroll();
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
      this.#list.insert(draft.item, order);
      return false;
    }
    if (id && this.#ids.has(id)) return false;
    this.#ids.add(id);
    const message = { text: textOf(data), user: info?.user ?? "", name: nameOf(info), time };
    this.#list.insert(this.#list.item(message), order);
    return !mine;
  }

  #order(offset) { return this.#generation * EPOCH_SPAN + offset; }
}
