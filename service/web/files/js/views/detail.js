// One candidate: its text or what it changed, its scores, the rules that it breaks, and what the critic said of it.

import { h, replace } from "../dom.js";
import { evaluatorLabel, optionLabel, t } from "../i18n.js";
import { diff } from "../run/diff.js";
import { best, issuesOf } from "../run/state.js";
import { diffBlock, shown, textBlock } from "./text.js";
import { scoreLines, scoreText } from "./score.js";

export function detailView() {
  const element = h("section", { class: "detail", "aria-label": t("candidate", { id: "" }) });
  let drawn = null;
  let wantsDiff = true;

  function update(state, picked) {
    const candidate = state.candidates.get(picked) ?? best(state);
    const critique = state.critiques.findLast((known) => known.candidate === candidate?.id) ?? null;
    const isBest = candidate !== null && candidate.id === best(state)?.id;
    if (drawn && drawn.candidate === candidate && drawn.critique === critique && drawn.isBest === isBest) return;
    drawn = { candidate, critique, isBest };
    element.hidden = candidate === null;
    if (candidate !== null) draw(state, candidate, critique, isBest);
  }

  function draw(state, candidate, critique, isBest) {
    const parent = state.candidates.get(candidate.parent);
    const body = h("div", {});
    const drawBody = () => replace(body, parent && wantsDiff ? diffBlock(candidate.diff ?? diff(parent.text, candidate.text)) : textBlock(candidate.text));
    drawBody();
    element.setAttribute("aria-label", t("candidate", { id: candidate.id }));
    replace(
      element,
      h(
        "header",
        {},
        h("h3", {}, t("candidate", { id: candidate.id })),
        h("span", { class: "form" }, optionLabel("form", candidate.form), parent ? ` ${t("from_parent", { parent: parent.id })}` : null),
        isBest ? h("span", { class: "tag" }, t("best")) : null,
        h("span", { class: "number" }, scoreText(candidate.score)),
      ),
      parent ? views(drawBody) : null,
      body,
      checks(candidate),
      critique ? remarks(critique) : null,
    );
  }

  function views(drawBody) {
    const buttons = [false, true].map((isDiff) =>
      h("button", { type: "button", "aria-pressed": String(wantsDiff === isDiff), onclick: () => choose(isDiff) }, t(isDiff ? "diff_view" : "text_view")),
    );
    function choose(isDiff) {
      wantsDiff = isDiff;
      buttons.forEach((button, index) => button.setAttribute("aria-pressed", String((index === 1) === isDiff)));
      drawBody();
    }
    return h("div", { class: "modes small", role: "group" }, buttons);
  }

  return { element, update };
}

function checks(candidate) {
  if (candidate.evaluations === null) return h("p", { class: "hint" }, t("not_scored"));
  const issues = issuesOf(candidate);
  return h(
    "div",
    { class: "checks" },
    h("h4", {}, t("checks")),
    h("ul", { class: "score-lines" }, scoreLines(candidate.evaluations)),
    issues.length > 0
      ? [h("h4", { class: "fail" }, t("broken")), h("ul", { class: "issues" }, issues.map((issue) => h("li", {}, h("b", {}, evaluatorLabel(issue.evaluator)), " ", shown(issue.message))))]
      : candidate.passed
        ? h("p", { class: "kept" }, t("all_kept"))
        : null,
    candidate.constraints?.enforced.length > 0
      ? h("p", { class: "hint" }, `${t("enforced")}: `, candidate.constraints.enforced.map((rule, index) => [index > 0 ? " " : "", h("code", {}, rule)]))
      : null,
  );
}

function remarks(critique) {
  const list = critique.issues.map((issue) => h("li", {}, shown(issue)));
  return h("div", { class: "critique" }, h("h4", {}, t("critique")), list.length > 0 ? h("ul", {}, list) : h("p", { class: "hint" }, t("nothing_to_change")));
}
