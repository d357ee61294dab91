/** A second person: this page again, in a frame beside the first person's page or in a window, as somebody else. */

import { $ } from "./elements.js";
import { guestName, storedName } from "./person.js";

const NAMES = ["Zoe", "Ben"];
const isFramed = Boolean(guestName) && parent !== window;

export const guest = {
  name: "",

  get isOpen() { return Boolean($("guest").src); },

  /** Choose a name that is not the first person's. */
  choose() {
    if (!this.isOpen) this.name = NAMES.find((name) => name !== storedName());
    return this.name;
  },

  /** Open the page as the second person. Resolves once the page is there. */
  open() {
    $("guest").title = `${this.choose()}, a second person`;
    $("guest").hidden = false;
    return new Promise((resolve) => {
      $("guest").onload = resolve;
      $("guest").src = addressOf(this.name);
    });
  },

  /** Go with the first person to another room. */
  follow() { if (this.isOpen) $("guest").contentWindow.location.replace(addressOf(this.name)); },

  close() {
    $("guest").hidden = true;
    $("guest").removeAttribute("src");
  },

  /** Let the second person send messages. @param {string[]} texts */
  async say(texts) {
    if (!this.isOpen) await this.open();
    $("guest").contentWindow.postMessage({ say: texts }, location.origin);
  },
};

/** Take part as the second person. @param {(text: string) => void} send in the room that is shown */
export function actAsGuest(send) {
  document.documentElement.classList.toggle("is-guest", Boolean(guestName));
  document.documentElement.classList.toggle("is-framed", isFramed);
  addEventListener("message", ({ origin, source, data }) => {
    if (isFramed && origin === location.origin && source === parent) data.say?.forEach(send);
  });
  const address = () => { $("own-window").href = addressOf(guestName); };
  address();
  addEventListener("hashchange", address);
  for (const id of ["own-window", "dismiss"]) {
    $(id).hidden = !isFramed;
    $(id).addEventListener("click", () => parent.postMessage({ isClosed: true }, location.origin));
  }
}

function addressOf(name) { return `?as=${encodeURIComponent(name)}${location.hash}`; }
