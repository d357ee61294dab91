/** What `hub.js` connects by where no WebSocket passes: a response that streams, and requests of their own. */

const POST_MS_MAX = 10_000;
const JSON_TYPE = { "Content-Type": "application/json" };

/** To its user a WebSocket, but for the connect command, which goes with the request that opens it. */
export class StreamSocket {
  readyState = 0;
  onopen = null;
  onmessage = null;
  onclose = null;
  #emulation;
  #credentials;
  #reading = new AbortController();
  #at = {}; // the session, and the node that it is on
  #frameChars = 0;
  #out = [];
  #isPosting = false;

  /**
   * @param {string} url of the hub's WebSocket endpoint @param {string} hello the connect command
   * @param {RequestCredentials} credentials of all requests
   */
  constructor(url, hello, credentials) {
    this.#credentials = credentials;
    const http = url.replace("ws", "http");
    this.#emulation = new URL("../emulation", http);
    this.#read(new URL("http_stream", http), hello);
  }

  /**
   * Learn from the connect result where to send to.
   * @param {{session: string, node: string}} result @param {number} frameChars characters that go in one request
   */
  locate({ session, node }, frameChars) {
    this.#at = { session, node };
    this.#frameChars = frameChars;
  }

  send(frame) {
    this.#out.push(frame);
    if (!this.#isPosting) this.#post();
  }

  close() {
    this.readyState = 3;
    this.#reading.abort();
  }

  async #read(address, body) {
    try {
      const { signal } = this.#reading;
      const response = await fetch(address, {
        method: "POST", headers: JSON_TYPE, body, signal, cache: "no-store", credentials: this.#credentials,
      });
      if (!response.ok) {
        return this.#end({ reason: `HTTP ${response.status}: ${(await response.text()).trim().slice(0, 200)}` });
      }
      this.readyState = 1;
      this.onopen?.();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = [];
      for (let { value, done } = await reader.read(); !done; { value, done } = await reader.read()) {
        const end = value.lastIndexOf("\n");
        rest.push(value.slice(0, end + 1));
        if (end < 0) rest[rest.length - 1] = value;
        else {
          const data = rest.join("");
          rest = [value.slice(end + 1)];
          this.onmessage?.({ data });
        }
      }
    } catch {
      // To a WebSocket's user too it is just over.
    }
    this.#end();
  }

  /** One request after the other, since they would overtake each other. */
  async #post() {
    this.#isPosting = true;
    while (this.#out.length) {
      let data = this.#out.shift();
      while (this.#out.length && data.length + this.#out[0].length < this.#frameChars) {
        data += `\n${this.#out.shift()}`;
      }
      try {
        const { status } = await fetch(this.#emulation, {
          method: "POST", headers: JSON_TYPE, body: JSON.stringify({ ...this.#at, data }),
          credentials: this.#credentials, signal: AbortSignal.timeout(POST_MS_MAX),
        });
        if (status === 413) return this.#end({ code: 1009 }); // as a WebSocket closes for a message that is too large
        if (status !== 404 && status < 500) continue;
      } catch {
        // What was sent may be lost.
      }
      return this.#end();
    }
    this.#isPosting = false;
  }

  #end({ code = 1006, reason = "" } = {}) {
    if (this.readyState === 3) return;
    this.close();
    this.onclose?.({ code, reason });
  }
}
