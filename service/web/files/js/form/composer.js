// The left side: what is to be written, by which rules, and at what cost.

import { freshId, h, replace } from "../dom.js";
import { labelOf, optionLabel, t } from "../i18n.js";
import { widget } from "./fields.js";
import { isComplete } from "./request.js";
import { ruleList } from "./rules.js";
import { evaluatorsOf, partOf } from "./schema.js";

/**
 * The form.
 *
 * form: what is stated; changed in place.
 * service: {schemas, tasks, features}, as far as they are loaded.
 * actions: {start(), changed(), task(name)}; `task` resolves to what is known of one.
 */
export function composer(form, service, actions) {
  const changed = () => actions.changed();
  const button = h("button", { type: "submit", class: "primary" }, t("start"), h("kbd", { "aria-hidden": "true" }, "⌃ ↵"));
  const complaint = h("p", { class: "complaint", role: "alert", hidden: true });

  function submit(event) {
    event.preventDefault();
    complaint.hidden = true;
    if (!isComplete(form)) {
      complaint.textContent = t("missing_prompt");
      complaint.hidden = false;
      element.querySelector(".subject textarea")?.focus();
      return;
    }
    actions.start();
  }

  function onkeydown(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) element.requestSubmit();
  }

  const element = h(
    "form",
    { class: "composer", "aria-label": t("request"), onsubmit: submit, onkeydown },
    subject(form, changed),
    taskPart(form, service, actions, changed),
    service.schemas ? rulesPart(form, service, changed) : null,
    service.schemas ? searchPart(form, service, changed) : null,
    service.schemas ? limitsPart(form, service, changed) : null,
    h("div", { class: "submit" }, switches(form, service, changed), complaint, button),
  );
  return element;
}

function subject(form, changed) {
  const body = h("div", { class: "subject" });
  const modes = ["prompt", "chat"].map((mode) =>
    h("button", { type: "button", "aria-pressed": String(form.mode === mode), onclick: () => choose(mode) }, t(mode)),
  );

  function choose(mode) {
    if (mode === "chat" && form.prompt && form.messages.every(({ content }) => content === "")) {
      form.messages = [{ role: "user", content: form.prompt }];
    }
    form.mode = mode;
    modes.forEach((button, index) => button.setAttribute("aria-pressed", String(["prompt", "chat"][index] === mode)));
    draw();
    changed();
  }

  function draw() {
    replace(body, form.mode === "prompt" ? promptField(form, changed) : chatFields(form, changed, draw));
  }

  draw();
  return h("section", {}, h("div", { class: "modes", role: "group", "aria-label": t("request") }, modes), body);
}

function promptField(form, changed) {
  const oninput = (event) => ((form.prompt = event.target.value), changed());
  return h("textarea", { class: "prompt", rows: 4, "aria-label": t("prompt"), placeholder: t("prompt_placeholder"), value: form.prompt, oninput });
}

function chatFields(form, changed, draw) {
  const { messages } = form;
  const rows = messages.map((message, index) => {
    const id = freshId();
    const roles = index === 0 ? ["user", "system", "assistant"] : ["user", "assistant"];
    const onrole = (event) => ((message.role = event.target.value), changed());
    const oninput = (event) => ((message.content = event.target.value), changed());
    const remove = () => (messages.splice(index, 1), changed(), draw());
    return h(
      "div",
      { class: "message" },
      h(
        "div",
        { class: "message-head" },
        h("select", { "aria-label": t("chat"), onchange: onrole }, roles.map((role) => h("option", { value: role, selected: role === message.role }, t(`role_${role}`)))),
        messages.length > 1 ? h("button", { type: "button", class: "icon", "aria-label": t("remove"), onclick: remove }, "×") : null,
      ),
      h("label", { class: "unseen", for: id }, t(`role_${message.role}`)),
      h("textarea", { id, rows: 2, value: message.content, placeholder: t("prompt_placeholder"), oninput }),
    );
  });
  const add = () => {
    messages.push({ role: messages.at(-1)?.role === "user" ? "assistant" : "user", content: "" });
    changed();
    draw();
  };
  return [rows, h("button", { type: "button", class: "quiet", onclick: add }, t("add_message"))];
}

function taskPart(form, service, actions, changed) {
  const id = freshId();
  const about = h("p", { class: "hint" });
  const parameters = h("div", { class: "fields" });
  const known = service.tasks ?? [{ name: "general", description: "" }];
  const select = h("select", { id, onchange: choose }, known.map(({ name }) => h("option", { value: name, selected: name === form.task }, labelOf(name))));

  function choose() {
    form.task = select.value;
    form.parameters = {};
    changed();
    void describe();
  }

  async function describe() {
    const { name, description } = known.find((task) => task.name === form.task) ?? known[0];
    about.textContent = description;
    replace(parameters);
    if (name === "general") return;
    const task = await actions.task(name);
    if (!task || form.task !== name) return;
    const fields = Object.entries(task.parameters).map(([key, value]) => ({ name: key, kind: "text", required: value.default === null || value.default === undefined, longest: null }));
    replace(parameters, fields.map((field) => widget(field, form.parameters, changed)));
  }

  void describe();
  return h("section", {}, h("label", { class: "heading", for: id }, t("task")), select, about, parameters);
}

function rulesPart(form, service, changed) {
  return h(
    "section",
    {},
    h("h2", { class: "heading" }, t("rules")),
    h("p", { class: "hint" }, t("rules_hint")),
    ruleList(evaluatorsOf(service.schemas), form.evaluators, changed),
  );
}

function searchPart(form, service, changed) {
  const id = freshId();
  const fields = partOf(service.schemas, "search");
  const preset = fields.find(({ name }) => name === "preset");
  const onchange = (event) => {
    if (event.target.value) form.search.preset = event.target.value;
    else delete form.search.preset;
    changed();
  };
  const options = [h("option", { value: "" }, t("preset_none")), ...preset.options.map((name) => h("option", { value: name, selected: form.search.preset === name }, optionLabel("preset", name)))];
  return h(
    "section",
    {},
    h("label", { class: "heading", for: id }, t("search")),
    h("select", { id, onchange }, options),
    folded(t("search_more"), [
      h("div", { class: "fields" }, fields.filter((field) => field !== preset).map((field) => widget(field, form.search, changed))),
      h("h3", {}, t("stopping")),
      h("div", { class: "fields" }, partOf(service.schemas, "stop").map((field) => widget(field, form.stop, changed))),
    ]),
  );
}

function limitsPart(form, service, changed) {
  const sampling = partOf(service.schemas, "sampling");
  const isOften = ({ name }) => ["temperature", "max_tokens", "seed"].includes(name);
  const fieldsFor = (fields, values) => h("div", { class: "fields" }, fields.map((field) => widget(field, values, changed)));
  return h(
    "section",
    {},
    folded(t("limits"), [
      h("p", { class: "hint" }, t("limits_hint")),
      h("h3", {}, t("budget")),
      fieldsFor(partOf(service.schemas, "budget"), form.budget),
      h("h3", {}, t("sampling")),
      fieldsFor(sampling.filter(isOften), form.sampling),
      h("details", { class: "seldom" }, h("summary", {}, t("more")), fieldsFor(sampling.filter((field) => !isOften(field)), form.sampling)),
      startingText(form, changed),
      widget({ name: "judge", kind: "boolean", optional: true, required: false, initial: null }, form, () => ((form.judge ??= null), changed())),
    ]),
  );
}

function startingText(form, changed) {
  const id = freshId();
  const oninput = (event) => ((form.draft = event.target.value), changed());
  return h("div", { class: "field wide" }, h("label", { for: id }, t("draft")), h("textarea", { id, rows: 2, value: form.draft, oninput }));
}

function switches(form, service, changed) {
  const make = (name, label, hint) => {
    const id = freshId();
    const onchange = (event) => ((form[name] = event.target.checked), changed());
    return h(
      "div",
      { class: "field check" },
      h("input", { id, type: "checkbox", checked: form[name], onchange, "aria-describedby": `${id}n` }),
      h("label", { for: id }, label),
      h("small", { id: `${id}n` }, hint),
    );
  };
  return [
    service.features.jobs ? make("background", t("as_job"), t("as_job_hint")) : null,
    service.features.stored_traces ? make("store", t("store"), t("store_hint")) : null,
  ];
}

function folded(title, children) {
  return h("details", { class: "folded" }, h("summary", {}, title), h("div", {}, children));
}
