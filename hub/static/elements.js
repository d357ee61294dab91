/** Elements of the page. Their content is text or other elements, so that nothing a user writes becomes markup. */

const HUES = ["#b3261e", "#0b5cad", "#00703a", "#85268f", "#9a4400", "#006a75", "#5647c4", "#9c1a58"];

export const $ = (id) => document.getElementById(id);

/** @param {string} tag @param {string} className @param {...(string | Node)} content */
export function element(tag, className = "", ...content) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...content);
  return made;
}

/** @param {string} text @param {() => void} onClick */
export function button(text, onClick) {
  const made = element("button", "", text);
  made.type = "button";
  made.addEventListener("click", onClick);
  return made;
}

/** A disc with the first letter of a name, in the colour of the user. */
export function bullet(user, name) {
  const made = element("span", "bullet", Array.from(name)[0]?.toUpperCase() ?? "?");
  let sum = 0;
  for (const char of user) sum = (sum * 31 + char.codePointAt(0)) >>> 0;
  made.style.setProperty("--hue", HUES[sum % HUES.length]);
  made.setAttribute("aria-hidden", "true");
  return made;
}

/** The name that a client gave at its login. @param {import("./common.js").ClientInfo} [info] none for the server */
export function nameOf(info) {
  return String(info?.connInfo?.name ?? info?.user ?? "") || (info ? "Guest" : "Server");
}
