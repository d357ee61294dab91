// The page that tries the server API: a form for each method of openapi.json, beside this page.

const EXAMPLES = {
  publish: { channel: "news", data: { text: "hello" } },
  broadcast: { channels: ["news", "sport"], data: { text: "hello" } },
  subscribe: { user: "ann", channel: "news" },
  unsubscribe: { user: "ann", channel: "news" },
  disconnect: { user: "ann" },
  refresh: { user: "ann", expire_at: Math.floor(Date.now() / 1000) + 3600 },
  presence: { channel: "news" },
  presence_stats: { channel: "news" },
  history: { channel: "news", limit: 10, reverse: true },
  history_remove: { channel: "news" },
  channels: { pattern: "*" },
  info: {},
  rpc: { method: "time", data: {} },
  batch: { commands: [{ publish: { channel: "news", data: 1 } }, { info: {} }] },
};

const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

const typeOf = (schema) => {
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.type === "array") return `list of ${typeOf(schema.items ?? {})}`;
  return schema.type ?? "any JSON";
};

const fields = (schema) => {
  const rows = Object.entries(schema.properties ?? {}).map(([name, field]) =>
    element("tr", {},
      element("td", {}, element("code", { textContent: name })),
      element("td", { textContent: typeOf(field) }),
      element("td", { textContent: schema.required?.includes(name) ? "required" : "" })));
  return rows.length ? element("table", {}, element("tbody", {}, ...rows)) : "";
};

async function run(method, body, output) {
  output.className = "";
  output.textContent = "…";
  try {
    const response = await fetch(method, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-API-Key": document.getElementById("key").value },
      body,
    });
    const answer = await response.json();
    output.className = answer.error ? "bad" : "";
    output.textContent = `HTTP ${response.status}\n${JSON.stringify(answer, null, 2)}`;
  } catch (error) {
    output.className = "bad";
    output.textContent = `no answer: ${error.message}`;
  }
}

function form(method, operation, schemas) {
  const reference = operation.requestBody.content["application/json"].schema.$ref;
  const body = element("textarea", {
    id: `body-${method}`, rows: 5, spellcheck: false, value: JSON.stringify(EXAMPLES[method] ?? {}, null, 2),
  });
  const output = element("pre", { tabIndex: 0 });
  output.setAttribute("aria-live", "polite");
  output.setAttribute("aria-label", `answer of ${method}`);
  const call = element("button", { type: "button", textContent: `POST /api/${method}` });
  call.addEventListener("click", () => run(method, body.value, output));
  return element("details", {},
    element("summary", {}, element("h2", { textContent: method })),
    element("p", { textContent: operation.summary }),
    operation.description === operation.summary ? "" : element("p", { textContent: operation.description }),
    fields(schemas[reference.split("/").at(-1)]),
    element("label", { htmlFor: body.id, textContent: "Body" }),
    body, call, output);
}

const list = document.getElementById("methods");
try {
  const description = await (await fetch("openapi.json")).json();
  list.replaceChildren(...Object.entries(description.paths).map(([path, { post }]) =>
    form(path.split("/").at(-1), post, description.components.schemas)));
} catch (error) {
  list.replaceChildren(element("p", { className: "bad", textContent: `openapi.json: ${error.message}` }));
}
