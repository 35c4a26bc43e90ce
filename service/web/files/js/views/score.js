// How good a text is, in a few marks.

import { h } from "../dom.js";
import { evaluatorLabel, formatNumber, t } from "../i18n.js";

export const scoreText = (score) => (score === null || score === undefined ? "–" : formatNumber(score, 2));

/** "pass", "fail" or "open" (nobody knows, or nothing is hard). */
export function verdict(candidate) {
  if (candidate.passed === true) return "pass";
  return candidate.passed === false ? "fail" : "open";
}

/** A bar from 0 to 1. The number next to it says the same. */
export function bar(score, tone = "") {
  const meter = h("span", { class: `bar ${tone}`, "aria-hidden": "true" }, h("span", {}));
  meter.firstChild.style.width = `${Math.round((score ?? 0) * 100)}%`;
  return meter;
}

/** A line for each evaluator, and one for each criterion of a judge. */
export function scoreLines(evaluations) {
  return evaluations.flatMap((evaluation) => {
    const tone = evaluation.passed === false ? "fail" : evaluation.passed === true ? "pass" : "";
    const name = evaluatorLabel(evaluation.evaluator);
    const own = line(name, evaluation.score, tone, { note: evaluation.error, mark: evaluation.passed });
    const criteria = (evaluation.criteria ?? []).map((criterion) =>
      line(criterion.name, criterion.score, "", { inner: true, error: criterion.stderr }),
    );
    return [own, ...criteria];
  });
}

function line(name, score, tone, { note = null, mark = null, inner = false, error = null } = {}) {
  const sign = mark === null || mark === undefined ? null : h("span", { class: `sign ${tone}` }, h("span", { "aria-hidden": "true" }, mark ? "✓" : "✗"), h("span", { class: "unseen" }, t(mark ? "passed" : "failed")));
  return h(
    "li",
    { class: inner ? "score-line inner" : "score-line" },
    h("span", { class: "name" }, name),
    sign,
    bar(score, tone),
    h("span", { class: "number" }, scoreText(score), error ? h("small", {}, ` ± ${formatNumber(error, 2)}`) : null),
    note ? h("small", { class: "note" }, note) : null,
  );
}
