// Texts of models and callers. They are shown as they are: no markup, no characters that hide or turn others.

import { h } from "../dom.js";
import { formatNumber, t } from "../i18n.js";

const SHOWN_AT_ONCE = 20_000; // characters
// Controls, and what cannot be seen or changes the direction of other characters.
const HIDDEN = /[\u0000-\u0008\u000B-\u001F\u007F-\u009F\u00AD\u061C\u180E\u200B-\u200F\u2028-\u202E\u2060-\u206F\uFEFF\uFFF9-\uFFFB]|[\u{E0000}-\u{E007F}]/gu;

/** Nodes that show a text. */
export function shown(text) {
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(HIDDEN)) {
    if (match[0] === "\u200D" || match[0] === "\u200C") continue; // they join emoji, and letters of many scripts
    if (match.index > end) nodes.push(text.slice(end, match.index));
    const point = match[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    nodes.push(h("span", { class: "codepoint", title: t("invisible") }, `U+${point}`));
    end = match.index + match[0].length;
  }
  nodes.push(text.slice(end));
  return nodes;
}

/** A block with a text. A very long one is cut until the person wants all of it. */
export function textBlock(text, name = "text") {
  const isLong = text.length > SHOWN_AT_ONCE;
  const body = h("div", { class: `prose ${name}`, dir: "auto" }, shown(isLong ? text.slice(0, SHOWN_AT_ONCE) : text));
  if (!isLong) return body;
  const all = h("button", { type: "button", class: "quiet", onclick: showAll }, t("long_text", { count: formatNumber(text.length) }));
  function showAll() {
    body.replaceChildren(...shown(text));
    all.remove();
  }
  return h("div", {}, body, all);
}

/** The changes between two texts. */
export function diffBlock(changes) {
  const parts = changes.map(({ op, text }) => {
    if (op === "equal") return shown(text);
    return h(op === "insert" ? "ins" : "del", {}, shown(text));
  });
  return h("div", { class: "prose diff", dir: "auto" }, parts);
}
