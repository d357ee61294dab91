// Mistakes with `hub.js`, with the WebSocket of `ws` in place of a browser's. Prints what is said, as JSON by name.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, port, freePort] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${folder}/`));
globalThis.WebSocket = class extends require("ws") {
  constructor(url) {
    super(url);
    this.on("error", () => {}); // a browser's WebSocket throws nothing where nobody listens
  }
};
const { Hub } = await import("../../hub/static/hub.js");

function thrown(make) {
  try {
    make();
    return "nothing";
  } catch (error) {
    return error.message;
  }
}

function problem(url) {
  return new Promise((resolve) => {
    const hub = new Hub(url);
    hub.on("error", ({ error }) => {
      hub.disconnect();
      resolve(error.message);
    });
    hub.connect();
  });
}

console.log(JSON.stringify({
  address_without_scheme: thrown(() => new Hub("127.0.0.1:8000")),
  unknown_option: thrown(() => new Hub("http://127.0.0.1:8000", { tokn: "" })),
  wrong_port: await problem(`http://127.0.0.1:${freePort}`),
  wrong_path: await problem(`http://127.0.0.1:${port}/lve`),
}));
process.exit();
