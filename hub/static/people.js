/** The people in a room, and who joins and leaves. */

import { $, bullet, element, nameOf } from "./elements.js";

export class People {
  #user;
  #onChange;
  #isLoaded = false;
  #clients = new Map(); // id to ClientInfo: each window is a client

  /**
   * @param {string} user of this page
   * @param {(user: string, name: string, isHere: boolean) => void} onChange somebody else joined or left
   */
  constructor(user, onChange) {
    this.#user = user;
    this.#onChange = onChange;
    this.#render();
  }

  /** @param {import("./hub.js").Subscription} subscription with `joinLeave` */
  follow(subscription) {
    subscription
      .on("join", ({ info }) => this.#set(new Map(this.#clients).set(info.client, info)))
      .on("leave", ({ info }) => this.#set(without(this.#clients, info.client)))
      .on("subscribed", () => this.#load(subscription));
  }

  async #load(subscription) {
    try {
      const { clients } = await subscription.presence();
      if (subscription.state !== "subscribed") return; // the user has left the room
      this.#set(new Map(Object.entries(clients)));
      this.#isLoaded = true;
    } catch { /* the next subscribed event tries again */ }
  }

  /** The name of a user who is here, other than the user of this page. */
  get other() { return this.#users().find(({ user }) => user !== this.#user)?.name; }

  #set(clients) {
    const before = this.#users();
    this.#clients = clients;
    const after = this.#users();
    this.#render();
    if (!this.#isLoaded) return;
    const has = (people, { user }) => user === this.#user || people.some((other) => other.user === user);
    for (const person of before) if (!has(after, person)) this.#onChange(person.user, person.name, false);
    for (const person of after) if (!has(before, person)) this.#onChange(person.user, person.name, true);
  }

  #users() {
    const users = new Map();
    for (const info of this.#clients.values()) {
      const windows = (users.get(info.user)?.windows ?? 0) + 1;
      users.set(info.user, { user: info.user, name: nameOf(info), windows });
    }
    return [...users.values()];
  }

  #render() {
    const isMe = ({ user }) => user === this.#user;
    const people = this.#users().sort((a, b) => isMe(b) - isMe(a) || a.name.localeCompare(b.name));
    $("people").replaceChildren(...people.map((person) => {
      const item = element("li", "person", bullet(person.user, person.name), element("span", "", person.name));
      const notes = [isMe(person) && "you", person.windows > 1 && `${person.windows} windows`].filter(Boolean);
      if (notes.length) item.append(" ", element("small", "", notes.join(", ")));
      return item;
    }));
    $("count").textContent = people.length;
  }
}

function without(clients, client) {
  const left = new Map(clients);
  left.delete(client);
  return left;
}
