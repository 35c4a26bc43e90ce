// Score against tokens spent: a dot for each candidate, and a step line for the best so far. Drawn by hand in SVG; a few
// paths hold all points, so 1,000 candidates cost no more elements than ten.

import { h, s } from "../dom.js";
import { formatNumber, t } from "../i18n.js";
import { scoreText, verdict } from "./score.js";

const WIDTH = 520;
const HEIGHT = 210;
const LEFT = 34;
const RIGHT = 14;
const TOP = 14;
const BOTTOM = 28;

export function chartView() {
  const grid = s("g", { class: "grid" });
  const line = s("path", { class: "lead" });
  const dots = { pass: s("path", { class: "dots pass" }), fail: s("path", { class: "dots fail" }), open: s("path", { class: "dots open" }) };
  const marker = s("circle", { class: "marker", r: 6, visibility: "hidden" });
  const svg = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": t("chart_empty") }, grid, line, Object.values(dots), marker);
  const element = h("figure", { class: "panel chart" }, h("figcaption", {}, t("chart")), svg);
  let scale = 0;

  function update(state) {
    const scored = [...state.candidates.values()].filter(({ score }) => score !== null && score !== undefined);
    const most = niceLimit(Math.max(state.tokens, 1));
    if (most !== scale) {
      scale = most;
      drawGrid(grid, most);
    }
    const x = (tokens) => LEFT + (tokens / most) * (WIDTH - LEFT - RIGHT);
    const y = (score) => TOP + (1 - score) * (HEIGHT - TOP - BOTTOM);
    const paths = { pass: "", fail: "", open: "" };
    for (const candidate of scored) paths[verdict(candidate)] += `M${x(candidate.tokens).toFixed(1)} ${y(candidate.score).toFixed(1)}h0`;
    for (const [name, path] of Object.entries(dots)) path.setAttribute("d", paths[name]);
    const steps = leads(state);
    line.setAttribute("d", steps.map(({ tokens, score }, index) => (index === 0 ? `M${x(tokens)} ${y(score)}` : `H${x(tokens)}V${y(score)}`)).join(""));
    const last = steps.at(-1);
    marker.setAttribute("visibility", last ? "visible" : "hidden");
    if (!last) return;
    marker.setAttribute("cx", x(last.tokens));
    marker.setAttribute("cy", y(last.score));
    svg.setAttribute("aria-label", t("chart_summary", { score: scoreText(last.score), tokens: formatNumber(state.tokens) }));
  }

  return { element, update };
}

/** The best score after each round, and now. */
function leads(state) {
  const scoreOf = (id) => state.candidates.get(id)?.score;
  const first = state.candidates.get(state.rounds[0]?.incumbent ?? state.incumbent);
  const steps = first?.score === null || first?.score === undefined ? [] : [{ tokens: first.tokens, score: first.score }];
  for (const { incumbent, tokens } of state.rounds) steps.push({ tokens, score: scoreOf(incumbent) });
  steps.push({ tokens: state.tokens, score: scoreOf(state.incumbent) });
  return steps.filter(({ score }) => score !== null && score !== undefined);
}

function drawGrid(grid, most) {
  const levels = [0, 0.5, 1].map((score) => {
    const y = TOP + (1 - score) * (HEIGHT - TOP - BOTTOM);
    return [s("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y }), s("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, formatNumber(score, 1))];
  });
  const ticks = [0, 0.5, 1].map((share) => {
    const anchor = share === 0 ? "start" : share === 1 ? "end" : "middle";
    return s("text", { x: LEFT + share * (WIDTH - LEFT - RIGHT), y: HEIGHT - 8, "text-anchor": anchor }, formatNumber(share * most));
  });
  grid.replaceChildren(...levels.flat(), ...ticks);
}

/** The next round number, so that the axis seldom moves. */
function niceLimit(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].map((factor) => factor * power).find((limit) => limit >= value);
}
