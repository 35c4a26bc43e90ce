// One run of learning: its step, how far that has come, and what came of it.

import { h } from "../dom.js";
import { currentLanguage, formatNumber, t } from "../i18n.js";
import { nameOf } from "./adapter.js";

/** How far a step has come, as words. */
function amount(done, total) {
  if (done === null) return [];
  return total === null ? [formatNumber(done)] : [`${formatNumber(done)} / ${formatNumber(total)}`];
}

export function runRow(run) {
  const { state, step, done, total, note, adapter, decision, error } = run;
  const isRunning = state === "running";
  const label = [step ? t(`step_${step}`) : null, ...amount(done, total)].filter((word) => word !== null).join(" ");
  return h(
    "li",
    { class: `learning-run ${state}` },
    h("span", { class: "state" }, t(`run_${state}`)),
    h("time", { datetime: run.started_at }, new Date(run.started_at).toLocaleString(currentLanguage())),
    run.recipe ? h("code", {}, run.recipe) : null,
    h("span", {}, label),
    isRunning && total ? h("progress", { max: total, value: done ?? 0, "aria-label": label }) : null,
    note ? h("span", { class: "hint" }, note) : null,
    adapter ? h("code", {}, nameOf(adapter)) : null,
    decision ? h("span", { class: "tag" }, t(`verdict_${decision}`)) : null,
    error ? h("p", { class: "complaint" }, error) : null,
  );
}
