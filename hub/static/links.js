/** Links in messages. */

import { element } from "./elements.js";

const ADDRESS = /\bhttps?:\/\/[^\s<>"']+/gi;
const PUNCTUATION = /[.,;:!?*_~]/;
const ADDRESS_CHARS_MAX = 2000;

/** A text with its web addresses as links. Everything is text, so nothing that a user writes becomes markup. */
export function withLinks(text) {
  const fragment = document.createDocumentFragment();
  let end = 0;
  for (const { 0: found, index } of text.matchAll(ADDRESS)) {
    const address = trimmed(found);
    if (!isSafe(address)) continue;
    const link = element("a", "", address);
    link.href = address;
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow ugc";
    fragment.append(text.slice(end, index), link);
    end = index + address.length;
  }
  fragment.append(text.slice(end));
  return fragment;
}

/** Whether an address is valid and short. One with a user name misleads: `https://bank.example@evil.example`. */
function isSafe(address) {
  if (address.length > ADDRESS_CHARS_MAX || !URL.canParse(address)) return false;
  const { username, password } = new URL(address);
  return !username && !password;
}

/** The address without the punctuation of the sentence around it, and without a bracket that it does not open. */
function trimmed(address) {
  const count = (char) => address.split(char).length - 1;
  const unopened = { ")": count(")") - count("("), "]": count("]") - count("[") };
  let end = address.length;
  while (PUNCTUATION.test(address[end - 1]) || unopened[address[end - 1]]-- > 0) end--;
  return address.slice(0, end);
}
