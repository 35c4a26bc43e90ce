// The rules of a request: one card for each evaluator, made from its schema.

import { freshId, h, replace } from "../dom.js";
import { evaluatorLabel, t } from "../i18n.js";
import { widget } from "./fields.js";

/** The list of rules and the field to add one. `rules` is changed in place; `onChange` is called after each change. */
export function ruleList(evaluators, rules, onChange) {
  const list = h("ol", { class: "rules", "aria-label": t("rules") });
  const id = freshId();
  const picker = h("select", { id, class: "adder", onchange: add }, h("option", { value: "" }, t("choose_rule")), groups());

  function groups() {
    return [false, true].map((isJudge) =>
      h(
        "optgroup",
        { label: t(isJudge ? "judges" : "verifiers") },
        evaluators
          .filter((evaluator) => evaluator.isJudge === isJudge)
          .map(({ type }) => h("option", { value: type }, evaluatorLabel(type))),
      ),
    );
  }

  function add() {
    if (!picker.value) return;
    rules.push({ type: picker.value });
    picker.value = "";
    draw();
    onChange();
    list.lastElementChild.querySelector("input, select, textarea")?.focus();
  }

  function remove(index) {
    rules.splice(index, 1);
    draw();
    onChange();
    picker.focus();
  }

  function card(rule, index) {
    const known = evaluators.find(({ type }) => type === rule.type);
    const name = evaluatorLabel(rule.type);
    const isOften = (field) => !["weight", "hard", "separator", "case_sensitive", "counts", "letters", "marker", "tolerance", "locale", "timeout_seconds", "memory_mib", "midpoint"].includes(field.name);
    const fields = known?.fields ?? [];
    const seldom = fields.filter((field) => !isOften(field));
    return h(
      "li",
      { class: "rule" },
      h(
        "div",
        { class: "rule-head" },
        h("strong", {}, name),
        h("button", { type: "button", class: "icon", "aria-label": t("remove_rule", { name }), title: t("remove"), onclick: () => remove(index) }, "×"),
      ),
      known?.description ? h("p", { class: "hint" }, known.description) : null,
      h("div", { class: "fields" }, fields.filter(isOften).map((field) => widget(field, rule, onChange))),
      seldom.length > 0
        ? h("details", { class: "seldom" }, h("summary", {}, t("more")), h("div", { class: "fields" }, seldom.map((field) => widget(field, rule, onChange))))
        : null,
    );
  }

  function draw() {
    replace(list, rules.map(card));
    list.hidden = rules.length === 0;
  }

  draw();
  return h("div", {}, list, h("label", { class: "unseen", for: id }, t("add_rule")), picker);
}
