// The jobs of this key: what runs, what has ended, and a way to watch each.

import { get, send } from "../api.js";
import { h, replace } from "../dom.js";
import { currentLanguage, formatNumber, t } from "../i18n.js";
import { scoreText } from "./score.js";

const EVERY = 3000; // milliseconds between two looks while something runs
const PAGE = 20;

/** onWatch gets a job's id; onProblem what kept the list from loading. */
export function jobsView(onWatch, onProblem) {
  const list = h("ul", { class: "jobs" });
  const older = h("button", { type: "button", class: "quiet", hidden: true, onclick: () => load(jobs.at(-1).id) }, t("older"));
  const element = h("section", { class: "jobs-page" }, h("header", {}, h("h2", {}, t("jobs_title")), h("button", { type: "button", class: "quiet", onclick: () => load() }, t("refresh"))), list, older);
  let jobs = [];
  let timer = null;

  async function load(before = null) {
    clearTimeout(timer);
    try {
      const page = await get(`v1/jobs?limit=${PAGE}${before ? `&before=${before}` : ""}`);
      jobs = before ? [...jobs, ...page.jobs] : page.jobs;
      older.hidden = !page.has_more;
      draw();
    } catch (error) {
      onProblem(error);
      return;
    }
    const isBusy = jobs.some(({ state }) => state === "queued" || state === "running");
    if (isBusy && element.isConnected && jobs.length <= PAGE) timer = setTimeout(load, EVERY);
  }

  function draw() {
    replace(list, jobs.length > 0 ? jobs.map(row) : h("li", { class: "hint" }, t("jobs_empty")));
  }

  function row(job) {
    const isOpen = job.state === "queued" || job.state === "running";
    const { candidates, tokens, score } = job.progress;
    return h(
      "li",
      { class: `job ${job.state}` },
      h("span", { class: "state" }, job.cancelling ? t("stopping_now") : t(`state_${job.state}`)),
      h("time", { datetime: job.created_at }, new Date(job.created_at).toLocaleString(currentLanguage())),
      h("code", {}, job.kind),
      h("span", { class: "hint" }, t("job_progress", { candidates: formatNumber(candidates), tokens: formatNumber(tokens) })),
      h("span", { class: "number" }, scoreText(score)),
      h(
        "span",
        { class: "actions" },
        job.kind === "refine" ? h("button", { type: "button", onclick: () => onWatch(job.id) }, t("watch")) : null,
        isOpen ? h("button", { type: "button", class: "quiet", onclick: () => cancel(job.id) }, t("cancel")) : null,
      ),
    );
  }

  async function cancel(id) {
    await send("DELETE", `v1/jobs/${id}`).catch(onProblem);
    void load();
  }

  return { element, load, close: () => clearTimeout(timer) };
}
