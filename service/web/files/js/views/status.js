// Where the run is: its phase, the numbers that count, and the button that stops it.

import { h } from "../dom.js";
import { formatNumber, problemLabel, reasonLabel, t } from "../i18n.js";
import { best, isOver } from "../run/state.js";
import { scoreText } from "./score.js";

export function statusView({ onStop, onReset }) {
  const phase = h("h2", { class: "phase" });
  const numbers = Object.fromEntries(["score", "tokens", "rounds", "candidates", "elapsed"].map((name) => [name, h("dd", {}, "–")]));
  const facts = h("dl", { class: "facts" }, Object.entries(numbers).map(([name, value]) => h("div", {}, h("dt", {}, t(name)), value)));
  const stop = h("button", { type: "button", class: "stop", onclick: stopNow }, t("stop"));
  const reset = h("button", { type: "button", class: "quiet", onclick: onReset }, t("reset"));
  const problem = h("p", { class: "complaint", role: "alert", hidden: true });
  const progress = h("div", { class: "progress", "aria-hidden": "true" });
  const element = h("header", { class: "status" }, h("div", { class: "status-head" }, phase, stop, reset), progress, facts, problem);
  let began = null;
  let timer = null;

  function stopNow() {
    stop.disabled = true;
    stop.textContent = t("stopping_now");
    onStop();
  }

  function tick() {
    if (began !== null) numbers.elapsed.textContent = seconds((performance.now() - began) / 1000);
  }

  function update(state) {
    const over = isOver(state);
    element.dataset.phase = state.phase;
    phase.textContent = headline(state);
    numbers.score.textContent = scoreText(best(state)?.score);
    numbers.tokens.textContent = formatNumber(state.tokens);
    numbers.rounds.textContent = formatNumber(Math.max(0, state.round));
    numbers.candidates.textContent = formatNumber(state.candidates.size);
    stop.hidden = over;
    reset.hidden = !over;
    showProblem(state);
    if (!over && began === null) {
      began = performance.now();
      timer = setInterval(tick, 100);
    }
    if (over) {
      clearInterval(timer);
      if (state.result) numbers.elapsed.textContent = seconds(state.result.timing.total_seconds);
      began = null;
    }
  }

  function showProblem(state) {
    problem.hidden = state.problem === null;
    if (state.problem === null) return;
    const { code, detail, title } = state.problem;
    problem.textContent = [problemLabel(code) ?? detail ?? title ?? code, ...(state.problem.errors ?? []).map(({ field, message }) => `${field}: ${message}`)].filter((line, index, all) => all.indexOf(line) === index).join("\n");
  }

  return { element, update, close: () => clearInterval(timer) };
}

const seconds = (value) => `${formatNumber(value, 1)} s`;

function headline(state) {
  if (state.phase === "waiting") return t("waiting");
  if (state.phase === "running") return state.round === 0 ? t("writing") : t("working", { round: formatNumber(state.round) });
  if (state.phase === "done") return `${t("over_done")} · ${reasonLabel(state.result.stop_reason)}`;
  return t(`over_${state.phase}`);
}
