/** How each part of the page is done: the lines of its source that do it, read from the source itself. */

import { $, element } from "./elements.js";
import { fetchUncut } from "./network.js";

const TOKEN = /(\/\/.*|\/\*\*?.*|#\s.*|"""[^]*?""")|("[^"]*"|`[^`]*`|'[^']*')|\b(async|await|class|const|def|else|export|for|function|if|import|in|is|let|new|not|None|of|or|and|return|throw|this|try|catch)\b/g;
const KINDS = ["comment", "string", "keyword"];

/**
 * The lines that define a function, a method or a constant, without their indentation.
 * @param {string} source in JavaScript or Python @param {string} name
 */
export function definition(source, name) {
  const lines = source.split("\n");
  const starts = new RegExp(`^ *(?:(?:async|export|const|function|def|get|static) )*#?${name}(?: =|\\(.*[{:]$)`);
  const first = lines.findIndex((line) => starts.test(line));
  if (first < 0) return [];
  const indentation = lines[first].search(/\S/);
  const isInside = (line) => !line.trim() || line.search(/\S/) > indentation;
  let last = first + 1;
  while (last < lines.length && isInside(lines[last])) last++;
  if (/^\s*[}\])]/.test(lines[last] ?? "") && lines[last].search(/\S/) === indentation) last++;
  while (!lines[last - 1].trim()) last--;
  return lines.slice(first, last).map((line) => line.slice(indentation));
}

/** A source's text with its comments, strings and keywords marked. */
function coloured(text) {
  const code = element("code");
  let end = 0;
  for (const match of text.matchAll(TOKEN)) {
    const kind = KINDS[match.slice(1).findIndex(Boolean)];
    code.append(text.slice(end, match.index), element("span", kind, match[0]));
    end = match.index + match[0].length;
  }
  code.append(text.slice(end));
  return code;
}

/** Show the code of a part. @param {HTMLElement} opener with `data-title`, `data-text` and `data-code` */
async function show(opener) {
  const { title, text, code } = opener.dataset;
  $("code-title").textContent = title;
  $("code-text").textContent = text;
  const wanted = code.split(" ").map((each) => each.split(":"));
  $("code-parts").replaceChildren(...await Promise.all(wanted.map(async ([file, name]) => {
    const address = new URL(file, import.meta.url);
    const lines = definition(await (await fetchUncut(address)).text(), name);
    const link = element("a", "", file);
    link.href = address;
    link.target = "_blank";
    const pre = element("pre", "", coloured(lines.join("\n")));
    pre.tabIndex = 0;
    pre.setAttribute("aria-label", `${name} in ${file}`);
    return element("figure", "", element("figcaption", "", link), pre);
  })));
  place(opener);
}

/** Put the code beside the part that it belongs to, where there is room for it. */
function place(opener) {
  const part = opener.getBoundingClientRect();
  const { style, offsetWidth, offsetHeight } = $("code");
  const left = part.left > innerWidth / 2 ? part.left - offsetWidth - 8 : part.right + 8;
  style.left = `${Math.max(8, Math.min(left, innerWidth - offsetWidth - 8))}px`;
  style.top = `${Math.max(8, Math.min(part.top, innerHeight - offsetHeight - 8))}px`;
}

for (const opener of document.querySelectorAll("[data-code]")) {
  opener.prepend("</>");
  opener.title = "How this is done";
  opener.setAttribute("aria-label", `How this is done: ${opener.dataset.title}`);
  opener.popoverTargetElement = $("code");
  opener.addEventListener("click", () => show(opener));
}
