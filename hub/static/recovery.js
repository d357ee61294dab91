/** What cutting the network does: the token that brings the client back, and the messages that it missed. */

import { $, element } from "./elements.js";
import { network } from "./network.js";

const SHOWN_START = 8;
const SHOWN_END = 6;

export class Recovery {
  #token = "";
  #client = "";
  #offset = 0; // of the newest message that this page has
  #cut = null; // {at, offset, token, client, restoredAt, connectedAt, recovered, top}

  /** @param {import("./hub.js").Hub} hub */
  constructor(hub) {
    hub.on("connected", (context) => this.#connected(context));
  }

  /** @param {import("./hub.js").Subscription} subscription to the room that is shown, with `recoverable` */
  follow(subscription) {
    this.#offset = 0;
    this.#close();
    subscription
      .on("subscribed", (context) => this.#subscribed(subscription, context))
      .on("publication", ({ offset = 0 }) => this.#received(offset));
  }

  cut() {
    this.#cut = {
      at: Date.now(), offset: this.#offset, token: this.#token, client: this.#client, received: [],
    };
    network.cut();
    this.#showCut();
  }

  restore() {
    if (this.#cut) this.#cut.restoredAt = performance.now();
    network.restore();
  }

  #connected({ client, data }) {
    this.#client = client;
    this.#token = data?.reconnect_token ?? "";
    if (this.#cut) this.#cut.connectedAt = performance.now();
  }

  /** The page is in the room again. Ask the hub for the offset that the channel has reached meanwhile. */
  async #subscribed(subscription, { wasRecovering, recovered, streamPosition }) {
    if (!recovered) this.#offset = streamPosition?.offset ?? 0;
    const cut = this.#cut;
    if (!cut) return;
    if (!wasRecovering) return this.#close(); // the page had not been in this room before the cut
    try {
      const { offset } = await subscription.history({ limit: 0 });
      Object.assign(cut, { recovered, top: offset });
      this.#check();
    } catch { /* the next subscribed event tries again */ }
  }

  #received(offset) {
    this.#offset = Math.max(this.#offset, offset);
    this.#cut?.received.push(offset);
    this.#check();
  }

  /** Compare what came with what the hub has, once all of it can be here. */
  #check() {
    const { recovered, top, offset, received } = this.#cut ?? {};
    if (top === undefined || (recovered && this.#offset < top)) return;
    const missed = Math.max(top - offset, 0);
    const came = received.filter((each) => each > offset && each <= top);
    this.#showBack(this.#cut, missed, new Set(came).size, came.length);
    this.#cut = null;
  }

  #showCut() {
    const { offset, token } = this.#cut;
    this.#show("cut", "Your network is cut", { before: offset, missed: "?", recovered: "?", lost: "?" }, [
      ["This page has all messages up to ", strong(`offset ${offset}`), "."],
      token
        ? ["It keeps a ", strong("reconnect token"), ": ", code(shortened(token)), `, ${token.length} characters.`]
        : ["The hub gives no reconnect tokens here, so this page will log in again."],
      ["The others go on without you."],
    ]);
  }

  #showBack({ at, offset, top, token, client, restoredAt, connectedAt, recovered }, missed, unique, came) {
    const lost = missed - unique;
    const isWhole = recovered && !lost;
    const title = isWhole ? "Back, and nothing is lost" : "Back, but history no longer holds every message";
    const counts = { before: offset, missed, recovered: unique, lost: isWhole ? 0 : `≤ ${lost}` };
    const seconds = Math.round((Date.now() - at) / 1000);
    const back = Math.max(1, Math.round(connectedAt - restoredAt));
    this.#show(isWhole ? "back" : "gap", title, counts, [
      client === this.#client
        ? [`Away for ${seconds} s. The token brought this page back in `, strong(`${back} ms`),
          ", with no login, as the same client ", code(client.slice(0, 8)), "."]
        : [`Away for ${seconds} s. This page logged in again, as the client `, code(this.#client.slice(0, 8)), "."],
      token && this.#token
        ? ["A token works once: ", element("s", "", shortened(token)), " is used, ", code(shortened(this.#token)), " is next."]
        : [],
      [whatCame(recovered, missed, offset, top, came === unique)],
    ]);
  }

  #show(state, title, counts, steps) {
    $("recovery").hidden = false;
    $("recovery").dataset.state = state;
    $("recovery-title").textContent = title;
    for (const [id, count] of Object.entries(counts)) $(`recovery-${id}`).textContent = count;
    $("recovery-steps").replaceChildren(
      ...steps.filter((step) => step.length).map((step) => element("li", "", ...step)),
    );
  }

  #close() {
    this.#cut = null;
    $("recovery").hidden = true;
  }
}

function whatCame(recovered, missed, offset, top, isOnce) {
  if (!missed && recovered) return "Nobody wrote meanwhile.";
  if (!recovered) return "The page loads the newest messages instead.";
  const range = missed === 1 ? `offset ${top}` : `offsets ${offset + 1} to ${top}`;
  return `The hub sent ${range} from history, in order, ${isOnce ? "each once" : "some twice"}.`;
}

function strong(text) { return element("strong", "", text); }
function code(text) { return element("code", "", text); }

function shortened(token) { return `${token.slice(0, SHOWN_START)}…${token.slice(-SHOWN_END)}`; }
