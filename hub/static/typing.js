/** Who is typing, in a channel without history: a hint that is lost does no harm. */

import { $, nameOf } from "./elements.js";

const SEND_MS = 2000; // between two hints of one user
const SHOW_MS = 5000; // after the last hint

export class Typing {
  #subscription;
  #user;
  #sentAt = 0;
  #typing = new Map(); // user to {name, timer}

  /** @param {import("./hub.js").Subscription} subscription @param {string} user of this page */
  constructor(subscription, user) {
    this.#user = user;
    this.#subscription = subscription.on("publication", (publication) => this.#heard(publication));
    this.#render();
  }

  leave() {
    this.#subscription.unsubscribe();
    for (const user of [...this.#typing.keys()]) this.stopped(user);
  }

  /** Tell the others that this user types, every two seconds at most, or has stopped. */
  tell(isTyping) {
    const isDue = isTyping ? Date.now() - this.#sentAt > SEND_MS : this.#sentAt > 0;
    if (!isDue || this.#subscription.state !== "subscribed") return;
    this.#sentAt = isTyping ? Date.now() : 0;
    this.#subscription.publish({ isTyping }).catch(() => {});
  }

  /** A message was sent: the others know from it that this user has stopped. */
  sent() { this.#sentAt = 0; }

  /** A user has stopped typing: a message came, or nothing for a while. */
  stopped(user) {
    clearTimeout(this.#typing.get(user)?.timer);
    if (this.#typing.delete(user)) this.#render();
  }

  #heard({ data, info }) {
    if (!info || info.user === this.#user) return;
    this.stopped(info.user);
    if (!data?.isTyping) return;
    const timer = setTimeout(() => this.stopped(info.user), SHOW_MS);
    this.#typing.set(info.user, { name: nameOf(info), timer });
    this.#render();
  }

  #render() {
    const names = [...this.#typing.values()].map(({ name }) => name);
    $("typing").hidden = !names.length;
    if (names.length) {
      const who = names.length > 2 ? `${names.length} people` : names.join(" and ");
      $("typing-text").textContent = `${who} ${names.length > 1 ? "are" : "is"} typing`;
    }
  }
}
