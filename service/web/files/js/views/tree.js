// Who came from whom: a column for each round, a node for each candidate, an edge to its parent. A candidate without a
// parent begins a line of its own. The list below has the same by keyboard.

import { h, s } from "../dom.js";
import { formatNumber, t } from "../i18n.js";
import { best } from "../run/state.js";
import { scoreText, verdict } from "./score.js";

const COLUMN = 92;
const ROW = 34;
const MARGIN = 26;
const HEAD = 22;

export function treeView(onPick) {
  const edges = s("g", { class: "edges" });
  const nodes = s("g", { class: "nodes" });
  const heads = s("g", { class: "heads" });
  const svg = s("svg", { role: "img" }, heads, edges, nodes);
  const scroll = h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": t("tree") }, svg);
  const element = h("figure", { class: "panel tree" }, h("figcaption", {}, t("tree")), scroll);
  const placed = new Map(); // by id: {x, y, node, edge, shown}
  const columns = new Map(); // by round: how many nodes
  let size = "";

  function place(candidate) {
    const row = columns.get(candidate.round) ?? 0;
    if (row === 0) heads.append(s("text", { x: MARGIN + candidate.round * COLUMN, y: 12, "text-anchor": "middle" }, candidate.round === 0 ? t("drafts") : candidate.round));
    columns.set(candidate.round, row + 1);
    const x = MARGIN + candidate.round * COLUMN;
    const y = HEAD + MARGIN / 2 + row * ROW + 6;
    const node = s("g", { class: "node", transform: `translate(${x} ${y})`, onclick: () => onPick(candidate.id) }, s("title", {}, ""), s("circle", { r: 11 }), s("text", { y: 4, "text-anchor": "middle" }, candidate.id.replace(/^c/, "")));
    nodes.append(node);
    const parent = placed.get(candidate.parent);
    if (parent) edges.append(s("path", { d: curve(parent, { x, y }) }));
    const spot = { x, y, node, shown: null };
    placed.set(candidate.id, spot);
    return spot;
  }

  function update(state, picked) {
    const leader = best(state)?.id;
    for (const candidate of state.candidates.values()) {
      const spot = placed.get(candidate.id) ?? place(candidate);
      const look = `node ${verdict(candidate)} ${candidate.form}${candidate.id === leader ? " best" : ""}${candidate.id === picked ? " picked" : ""}`;
      if (spot.shown === look + candidate.score) continue;
      spot.shown = look + candidate.score;
      spot.node.setAttribute("class", look);
      spot.node.firstChild.textContent = `${candidate.id} · ${scoreText(candidate.score)}`;
    }
    const most = Math.max(1, ...columns.values());
    const width = MARGIN * 2 + Math.max(0, ...columns.keys()) * COLUMN;
    const height = HEAD + MARGIN + most * ROW;
    if (size !== `${width} ${height}`) {
      size = `${width} ${height}`;
      svg.setAttribute("viewBox", `0 0 ${size}`);
      svg.setAttribute("width", width);
      svg.setAttribute("height", height);
    }
    svg.setAttribute("aria-label", t("tree_summary", { candidates: formatNumber(state.candidates.size), rounds: formatNumber(state.rounds.length), best: leader ?? "–" }));
  }

  return { element, update };
}

/** From the parent to the child; within a column, around the side. */
function curve(from, to) {
  if (from.x === to.x) return `M${from.x} ${from.y}C${from.x + 28} ${from.y} ${to.x + 28} ${to.y} ${to.x} ${to.y}`;
  const half = (from.x + to.x) / 2;
  return `M${from.x} ${from.y}C${half} ${from.y} ${half} ${to.y} ${to.x} ${to.y}`;
}
