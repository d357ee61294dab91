/**
 * The network of this page, which the page can cut. While the network is cut, WebSockets and requests of `hub.js` fail
 * as they do in a tunnel. The hub sees a connection that broke, and not a client that said goodbye.
 */

const LINK_LOST = 4000; // codes 1000 and 1001 say goodbye

const sockets = new Set();
const RealSocket = globalThis.WebSocket;
let requests = new AbortController();

/** `fetch` over a network that is never cut, for the page's own files. */
export const fetchUncut = globalThis.fetch.bind(globalThis);

export const network = {
  isCut: false,

  cut() {
    this.isCut = true;
    requests.abort();
    for (const socket of sockets) {
      socket.close(LINK_LOST, "network cut");
      socket.dispatchEvent(new CloseEvent("close", { code: 1006 })); // at once: nobody waits for the hub's answer
    }
    dispatchEvent(new Event("offline"));
  },

  restore() {
    this.isCut = false;
    requests = new AbortController();
    dispatchEvent(new Event("online")); // hub.js tries at once, as with a network that is back
  },
};

globalThis.WebSocket = class extends RealSocket {
  constructor(...args) {
    super(...args);
    sockets.add(this);
    this.addEventListener("close", () => sockets.delete(this));
    if (network.isCut) this.close();
  }
};

globalThis.fetch = (input, init = {}) => {
  const signals = [init.signal, requests.signal].filter(Boolean);
  return fetchUncut(input, { ...init, signal: AbortSignal.any(signals) });
};
