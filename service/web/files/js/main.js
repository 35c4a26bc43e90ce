// The page: it loads what the service says of itself, keeps one form and one run, and draws both.

import { get, key } from "./api.js";
import { h, replace } from "./dom.js";
import { composer } from "./form/composer.js";
import { blank, fromRequest, toRequest } from "./form/request.js";
import { t } from "./i18n.js";
import { Runner } from "./run/runner.js";
import { features, keep, recall } from "./tab.js";
import { applyTheme, head } from "./views/head.js";
import { jobsView } from "./views/jobs.js";
import { askForKey } from "./views/key.js";
import { learningView } from "./views/learning.js";
import { FILE_FORMAT } from "./views/result.js";
import { announcement, runView } from "./views/run.js";
import { welcome } from "./views/welcome.js";

const app = document.getElementById("app");
const live = document.getElementById("live");
const service = { features: features(), schemas: null, tasks: null };
const runner = new Runner(onChange);
let form = { ...blank(), ...recall("form") };
let view = null; // what is drawn on the right
let last = null; // the state before this one

function sectionOf(hash) {
  const name = hash.slice(1);
  return ["jobs", "learning"].includes(name) && service.features[name] ? name : "refine";
}

function draw() {
  view?.close?.();
  const isWriting = document.activeElement?.matches(".prompt") ?? false;
  const section = sectionOf(location.hash);
  const actions = { key: () => void useKey(), redraw: draw };
  const main = h("main", { class: section });
  replace(app, head(service.features, section, actions), main);
  if (section !== "refine") {
    view = section === "jobs" ? jobsView(watch, onProblem) : learningView(onProblem, (words) => (live.textContent = words));
    main.append(view.element);
    void view.load();
    return;
  }
  main.append(composer(form, service, { start: () => void start(), changed: keepForm, task: loadTask }));
  drawRun(main);
  if (isWriting) main.querySelector(".prompt")?.focus();
}

/** The right side alone. */
function drawRun(main = app.querySelector("main.refine")) {
  if (!main) return;
  main.querySelector(".stage")?.remove();
  const stage = h("div", { class: "stage" });
  main.append(stage);
  if (runner.state === null) {
    view = { element: welcome(useExample, (file) => void open(file)), update() {}, close() {} };
    stage.append(view.element);
    return;
  }
  view = runView(service.features, { stop: () => void runner.stop().catch(onProblem), reset: () => runner.clear(), save, reuse });
  stage.append(view.element);
  view.update(runner.state);
}

function onChange(state) {
  const isNew = state === null || last === null || state.request !== last.request;
  if (state !== null) {
    const words = isNew ? null : announcement(last, state);
    if (words) live.textContent = words;
    if (state.problem?.code === "unauthorized" && last?.problem !== state.problem) void useKey();
  }
  last = state;
  if (isNew) {
    view?.close?.();
    drawRun();
  } else view?.update?.(state);
}

async function start() {
  if (service.features.keys && !key() && !(await askForKey())) return;
  const request = toRequest(form);
  queueMicrotask(showStage);
  if (form.background) await runner.startJob(request);
  else await runner.stream(request);
}

/** On a phone the run is below the form. */
function showStage() {
  const stage = app.querySelector(".stage");
  if (stage && stage.getBoundingClientRect().top > innerHeight / 2) stage.scrollIntoView();
}

function watch(job) {
  runner.watch(job);
  location.hash = "#refine";
}

function useExample(request) {
  form = fromRequest(request);
  keepForm();
  draw();
  app.querySelector(".composer .primary").focus();
}

function reuse() {
  form = fromRequest(runner.state.request);
  keepForm();
  draw();
}

const keepForm = () => keep("form", form);

/** The run as a file, which the page can show again anywhere. */
function save() {
  const whole = { format: FILE_FORMAT, version: 1, request: runner.state.request, events: runner.events };
  const url = URL.createObjectURL(new Blob([JSON.stringify(whole, null, 1)], { type: "application/json" }));
  h("a", { href: url, download: `${runner.state.id ?? "redraft"}.json` }).click();
  URL.revokeObjectURL(url);
}

async function open(file) {
  try {
    const { format, request, events } = JSON.parse(await file.text());
    if (format !== FILE_FORMAT || !Array.isArray(events)) throw new TypeError(format);
    runner.load(request, events);
  } catch {
    live.textContent = t("bad_file");
    alert(t("bad_file"));
  }
}

async function loadTask(name) {
  return get(`v1/tasks/${encodeURIComponent(name)}`).catch(onProblem);
}

async function useKey() {
  await askForKey();
  await loadService();
  draw();
}

function onProblem(error) {
  if (error.status === 401) void useKey();
  else live.textContent = error.message;
}

/** What the form is made from. Without a key the tasks are left out. */
async function loadService() {
  const schemas = fetch(new URL("../schema.json", import.meta.url)).then((response) => response.json());
  const tasks = service.features.keys && !key() ? null : get("v1/tasks").catch(() => null);
  service.schemas = await schemas;
  service.tasks = (await tasks)?.tasks ?? null;
}

applyTheme();
addEventListener("hashchange", draw);
runner.resume();
draw();
await loadService();
draw();
if (service.features.keys && !key()) void useKey();
