// What is learned: which adapter serves, the others with their verdicts, and the runs that make them.

import { get, send } from "../api.js";
import { h, replace } from "../dom.js";
import { t } from "../i18n.js";
import { adapterRow, nameOf } from "./adapter.js";
import { runRow } from "./learning_run.js";
import { sure } from "./sure.js";

const EVERY = 2000; // milliseconds between two looks while something goes on

/** onProblem gets what is not for this view to say; say gets a sentence for screen readers. */
export function learningView(onProblem, say) {
  const complaint = h("p", { class: "complaint", role: "alert", hidden: true });
  const serving = h("div", { class: "serving" });
  const adapters = h("ul", { class: "adapters" });
  const runs = h("ul", { class: "learning-runs" });
  const refresh = h("button", { type: "button", class: "quiet", onclick: () => void load() }, t("refresh"));
  const element = h(
    "section",
    { class: "learning-page" },
    h("header", {}, h("h2", {}, t("learning_title")), refresh),
    complaint,
    serving,
    h("section", {}, h("h3", {}, t("adapters")), adapters),
    h("section", {}, h("h3", {}, t("learning_runs")), runs),
  );
  let shown = { adapters: "", runs: "" }; // what is drawn, so that a look that brings nothing new moves nothing
  let timer = null;

  async function load() {
    clearTimeout(timer);
    let known;
    let learning;
    try {
      known = await get("v1/adapters"); // who may not see these sees no runs either
      learning = await get("v1/learning/runs");
    } catch (error) {
      complain(error);
      return;
    }
    complaint.hidden = true;
    draw(known, learning.runs);
    const isBusy = !known.ready || learning.runs.some(({ state }) => state === "running");
    if (isBusy && element.isConnected) timer = setTimeout(load, EVERY);
  }

  function draw(known, found) {
    const now = { adapters: JSON.stringify(known), runs: JSON.stringify(found) };
    if (now.adapters !== shown.adapters) {
      replace(serving, servingParts(known));
      replace(adapters, known.adapters.length > 0 ? known.adapters.map((adapter) => adapterRow(adapter, promote)) : h("li", { class: "hint" }, t("adapters_empty")));
    }
    if (now.runs !== shown.runs) replace(runs, found.length > 0 ? found.map(runRow) : h("li", { class: "hint" }, t("learning_runs_empty")));
    shown = now;
  }

  function servingParts(known) {
    const { base, model, serves, problem, ready, previous, can_roll_back: canRollBack } = known;
    const name = (id) => (id === null ? base : nameOf(id));
    return [
      h("p", {}, t("serves", { model }), " ", h("strong", {}, name(serves)), serves === null ? ` ${t("base_alone")}` : null),
      ready ? null : h("p", { class: "hint" }, t("engine_starting")),
      problem ? h("p", { class: "complaint" }, problem) : null,
      canRollBack ? sure(t("roll_back", { name: name(previous) }), t("roll_back_sure"), () => change("v1/adapters/rollback", "rolled_back")) : null,
    ];
  }

  const promote = (id) => change(`v1/adapters/${encodeURIComponent(id)}/promote`, "promoted");

  async function change(path, done) {
    complaint.hidden = true;
    try {
      await send("POST", path);
      say(t(done));
    } catch (error) {
      complain(error);
      return;
    }
    await load();
    refresh.focus(); // the button that was pressed is gone
  }

  function complain(error) {
    complaint.textContent = error.problem?.code === "operator_only" ? t("operators_only") : error.message;
    complaint.hidden = false;
    if (error.status === 401) onProblem(error);
  }

  return { element, load, close: () => clearTimeout(timer) };
}
