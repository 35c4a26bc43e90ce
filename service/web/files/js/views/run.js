// The right side while there is a run: status, result, pictures of the search, and its candidates.

import { h, onceAFrame } from "../dom.js";
import { formatNumber, t } from "../i18n.js";
import { best, isOver } from "../run/state.js";
import { candidateList } from "./candidates.js";
import { chartView } from "./chart.js";
import { detailView } from "./detail.js";
import { resultView } from "./result.js";
import { scoreText } from "./score.js";
import { statusView } from "./status.js";
import { treeView } from "./tree.js";
import { writingView } from "./writing.js";

const SHARE = 8; // after a drawing, the page rests this many times as long as the drawing took
const FRAME = 17; // milliseconds

/** actions: {stop(), reset(), save(), reuse()}. */
export function runView(features, actions) {
  let picked = null;
  let newest = null;
  let restUntil = 0;
  let later = null;
  const pick = (id) => {
    picked = id;
    draw(newest);
  };
  const status = statusView({ onStop: actions.stop, onReset: actions.reset });
  const writing = writingView();
  const result = resultView(features, actions);
  const chart = chartView();
  const tree = treeView(pick);
  const list = candidateList(pick);
  const detail = detailView();
  const element = h(
    "div",
    { class: "run" },
    status.element,
    result.element,
    writing.element,
    h("div", { class: "pictures" }, chart.element, tree.element),
    h("div", { class: "browse" }, list.element, detail.element),
  );

  const draw = onceAFrame((state) => {
    if (state === null || !element.isConnected) return;
    status.update(state);
    writing.update(state);
    const begun = performance.now();
    const wait = restUntil - begun;
    if (wait > 0 && !isOver(state)) {
      later ??= setTimeout(() => ((later = null), draw(newest)), wait);
      return;
    }
    const focus = picked ?? best(state)?.id ?? null;
    element.classList.toggle("bare", state.candidates.size === 0);
    result.update(state);
    chart.update(state);
    tree.update(state, focus);
    list.update(state, focus);
    detail.update(state, focus);
    // Layout comes after this frame's scripts, so the next frame tells what the drawing took.
    requestAnimationFrame(() => (restUntil = performance.now() + SHARE * Math.max(0, performance.now() - begun - FRAME)));
  });

  function update(state) {
    newest = state;
    draw(state);
  }

  return { element, update, close: () => (clearTimeout(later), status.close(), writing.close()) };
}

/** What a screen reader says about a change; null if it is not worth a word. */
export function announcement(before, state) {
  if (before?.phase !== state.phase) {
    if (state.phase === "done") return t("live_done", { score: scoreText(state.result.score) });
    if (state.phase === "stopped") return t("live_stopped");
    if (state.phase === "failed") return t("live_failed", { detail: state.problem.detail ?? state.problem.code });
  }
  if (before && state.rounds.length > before.rounds.length) {
    return t("live_round", { round: formatNumber(state.rounds.at(-1).number), score: scoreText(best(state)?.score) });
  }
  return null;
}
