// One adapter: what it was trained on, how its exam went, and whether it may serve.

import { get } from "../api.js";
import { h } from "../dom.js";
import { currentLanguage, formatNumber, t } from "../i18n.js";
import { sure } from "./sure.js";
import { textBlock } from "./text.js";

const NAME = 8; // characters of an id that people see

export const nameOf = (id) => id.slice(0, NAME);

/** onPromote gets the adapter's id and returns a promise. */
export function adapterRow(adapter, onPromote) {
  const { id, state, obstacle, verdict } = adapter;
  const isCurrent = state === "current";
  return h(
    "li",
    { class: `adapter ${state}` },
    h(
      "div",
      { class: "adapter-head" },
      h("code", { title: id }, nameOf(id)),
      h("span", { class: isCurrent ? "tag pass" : "hint" }, t(`adapter_${state}`)),
      verdict ? h("span", { class: `tag ${tone(verdict.decision)}` }, t(`verdict_${verdict.decision}`)) : null,
      adapter.created_at ? h("time", { datetime: adapter.created_at }, new Date(adapter.created_at).toLocaleString(currentLanguage())) : null,
      h("span", { class: "actions" }, isCurrent || state === "damaged" ? null : sure(t("promote"), t("promote_sure"), () => onPromote(id), { disabled: obstacle !== null })),
    ),
    state === "damaged" ? null : h("p", { class: "hint" }, t("lessons", { texts: count(adapter.texts), pairs: count(adapter.pairs), recipe: adapter.recipe ?? "–" }), adapter.forced ? ` ${t("forced")}` : null),
    verdict ? exam(verdict) : null,
    obstacle && !isCurrent ? h("p", { class: "hint" }, obstacle) : null,
    state === "damaged" ? null : card(id),
  );
}

const count = (value) => (value === null ? "–" : formatNumber(value));

function tone(decision) {
  if (decision === "promote") return "pass";
  return decision === "inconclusive" ? "" : "fail";
}

/** How many of the exam's prompts passed before and after, part by part. Weighed texts do not pass; the card has them. */
function exam({ figures, reasons, attempt }) {
  const parts = ["trained", "hidden", "other", "refine"].filter((part) => `${part}.candidate.passed` in figures);
  const lines = parts.map((part) => {
    const of = (name) => figures[`${part}.${name}`];
    const places = { before: percent(of("incumbent.passed")), after: percent(of("candidate.passed")), prompts: count(of("prompts") ?? null) };
    return h("li", {}, h("b", {}, t(`exam_${part}`)), " ", t("exam_line", places), gain(of("gain.low"), of("gain.high")));
  });
  return h("div", { class: "exam" }, h("ul", {}, lines), h("ul", { class: "issues" }, reasons.map((reason) => h("li", {}, reason))), h("p", { class: "hint" }, t("attempt", { attempt: count(attempt) })));
}

function gain(low, high) {
  if (low === undefined || high === undefined) return null;
  return h("span", { class: "hint" }, ` ${t("gain_between", { low: points(low), high: points(high) })}`);
}

const percent = (share) => (share === undefined ? "–" : `${formatNumber(share * 100, 1)} %`);
const points = (share) => `${share < 0 ? "-" : "+"}${formatNumber(Math.abs(share) * 100, 1)}`;

/** The adapter's card, which is fetched when it is opened. It is Markdown, and shown as it is. */
function card(id) {
  const body = h("div", {});
  const element = h("details", { class: "seldom", ontoggle: open }, h("summary", {}, t("card")), body);
  async function open() {
    if (!element.open || body.hasChildNodes()) return;
    try {
      const { card: text } = await get(`v1/adapters/${encodeURIComponent(id)}`);
      body.append(textBlock(text ?? "–", "card"));
    } catch (error) {
      body.append(h("p", { class: "complaint" }, error.message));
    }
  }
  return element;
}
