// The candidates round by round, newest round first, as rows to pick from. A row is drawn again only when its candidate
// has changed.

import { h } from "../dom.js";
import { formatNumber, optionLabel, t } from "../i18n.js";
import { best, issuesOf } from "../run/state.js";
import { shown } from "./text.js";
import { scoreText, verdict } from "./score.js";

const PREVIEW = 160; // characters
const CROWD = 100; // rows, from which on the browser skips those out of view

export function candidateList(onPick) {
  const element = h("div", { class: "candidates", onkeydown: move });
  const rounds = new Map(); // by number: {list, note, head}
  const rows = new Map(); // by id: {row, drawn}

  function move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const all = [...element.querySelectorAll(".row")];
    const next = all[all.indexOf(document.activeElement) + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
    next.click();
  }

  function roundFor(number) {
    if (rounds.has(number)) return rounds.get(number);
    const note = h("span", { class: "note" });
    const list = h("ul", {});
    const title = number === 0 ? t("drafts") : t("round_n", { round: formatNumber(number) });
    element.prepend(h("section", { class: "round" }, h("h3", {}, title, note), list));
    const made = { list, note };
    rounds.set(number, made);
    return made;
  }

  function draw(candidate, isBest, isPicked) {
    const known = rows.get(candidate.id);
    const looks = `${isBest} ${isPicked}`;
    if (known?.candidate === candidate && known.looks === looks) return;
    const row = known?.row ?? h("button", { type: "button", onclick: () => onPick(candidate.id) });
    if (!known) roundFor(candidate.round).list.append(h("li", {}, row));
    row.setAttribute("class", `row ${verdict(candidate)}${isBest ? " best" : ""}${isPicked ? " picked" : ""}`);
    row.setAttribute("aria-current", String(isPicked));
    if (known?.candidate !== candidate || known.isBest !== isBest) row.replaceChildren(...content(candidate, isBest));
    rows.set(candidate.id, { row, candidate, looks, isBest });
  }

  function update(state, picked) {
    element.classList.toggle("crowd", state.candidates.size > CROWD);
    const leader = best(state)?.id;
    for (const candidate of state.candidates.values()) draw(candidate, candidate.id === leader, candidate.id === picked);
    for (const { number, gain, accepted } of state.rounds) {
      const { note } = roundFor(number);
      if (number === 0 || note.textContent) continue;
      note.textContent = accepted ? (gain > 0 ? t("gain", { gain: formatNumber(gain, 2) }) : t("best")) : t("no_gain");
    }
  }

  return { element, update };
}

function content(candidate, isBest) {
  const broken = issuesOf(candidate).length;
  return [
    h(
      "span",
      { class: "row-head" },
      h("span", { class: "id" }, candidate.id),
      h("span", { class: "form" }, optionLabel("form", candidate.form), candidate.parent ? ` ${t("from_parent", { parent: candidate.parent })}` : null),
      isBest ? h("span", { class: "tag" }, t("best")) : null,
      broken > 0 ? h("span", { class: "count", title: t("broken") }, `✗ ${broken}`) : candidate.passed ? h("span", { class: "count ok" }, "✓") : null,
      h("span", { class: "number" }, scoreText(candidate.score)),
    ),
    h("span", { class: "preview", dir: "auto" }, shown(candidate.text.slice(0, PREVIEW))),
  ];
}
