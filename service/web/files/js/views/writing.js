// The texts at work, word by word. Each card has the end of one text. A screen reader can read them, but hears of none:
// rounds and results are announced.

import { h } from "../dom.js";
import { formatNumber, optionLabel, t } from "../i18n.js";
import { isOver } from "../run/state.js";
import { shown } from "./text.js";

const TAIL = 600; // characters of a text that a card has
const EVERY = 80; // milliseconds between two drawings
const CALM = 1000; // the same for those who prefer reduced motion
const HASTE = 5; // a drawing adds this part of what has come, so that words appear evenly
const LONGEST_WORD = 20; // characters
const SHARE = 8; // after a drawing, the cards rest this many times as long as the drawing took
const FRAME = 17; // milliseconds

export function writingView() {
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const list = h("ul", { class: "cards", tabindex: "0", "aria-label": t("being_written") });
  const idle = h("p", { class: "hint" }, t("nothing_written"));
  const element = h("section", { class: "writing", "aria-live": "off", hidden: true }, h("h3", {}, t("being_written")), idle, list);
  const cards = new Map(); // by place: {item, head, body, text, length}
  let isDrawing = false;
  let timer = null;

  function add(place) {
    const head = h("span", { class: "form" });
    const body = h("div", { class: "prose", dir: "auto" });
    const item = h("li", {}, head, h("div", { class: "tail" }, body));
    const card = { item, head, body, text: null, length: 0 };
    cards.set(place, card);
    list.append(item);
    return card;
  }

  /** Take the texts of a state; they are drawn by and by. */
  function update(state) {
    element.hidden = isOver(state) || !state.hasPieces;
    for (const [place, { item }] of cards) {
      if (state.writing.has(place)) continue;
      item.remove();
      cards.delete(place);
    }
    for (const [place, text] of state.writing) {
      const card = cards.get(place) ?? add(place);
      if (card.text?.lost !== text.lost) {
        card.length = 0;
        card.head.textContent = title(text);
        card.body.textContent = "";
      }
      if (text.isThinking && text.text === "") card.body.textContent = t("thinking");
      card.text = text;
    }
    idle.hidden = cards.size > 0;
    if (!isDrawing && hasMore()) draw();
  }

  const hasMore = () => [...cards.values()].some(({ text, length }) => length < text.text.length);

  function draw() {
    isDrawing = true;
    const begun = performance.now();
    for (const card of cards.values()) {
      const { text } = card.text;
      if (card.length >= text.length) continue;
      card.length = calm.matches ? text.length : grown(text, card.length);
      const from = Math.max(0, card.length - TAIL);
      card.body.replaceChildren(from > 0 ? "… " : "", ...shown(text.slice(from, card.length)));
    }
    // Layout comes after this frame's scripts, so the next frame tells what the drawing took.
    requestAnimationFrame(() => {
      const took = performance.now() - begun - FRAME;
      timer = setTimeout(drawMore, Math.max(calm.matches ? CALM : EVERY, SHARE * took));
    });
  }

  function drawMore() {
    isDrawing = false;
    if (element.isConnected && hasMore()) draw();
  }

  return { element, update, close: () => clearTimeout(timer) };
}

function title({ form, parent, index, lost }) {
  const name = `${optionLabel("form", form)} ${formatNumber(index + 1)}`;
  const words = [name, parent ? t("from_parent", { parent }) : null, lost > 0 ? `· ${t("begun_again")}` : null];
  return words.filter((word) => word !== null).join(" ");
}

/** How much of a text to show next: up to the end of a word. */
function grown(text, length) {
  const least = length + Math.ceil((text.length - length) / HASTE);
  const rest = text.slice(least, least + LONGEST_WORD).search(/\s/);
  const end = rest < 0 ? least : least + rest;
  const isHalf = text.charCodeAt(end) >> 10 === 0x37; // the second half of a surrogate pair
  return isHalf ? end + 1 : end;
}
