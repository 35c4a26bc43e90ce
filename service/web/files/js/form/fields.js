// Widgets for fields. Each reads its value from an object and writes what the person states back; what is left empty is
// left out, so that the service's own default applies.

import { freshId, h, replace } from "../dom.js";
import { labelOf, optionLabel, t } from "../i18n.js";

/** A labelled widget for a field of `values`. `onChange` is called after each change. */
export function widget(field, values, onChange) {
  const set = (value) => {
    if (value === undefined || value === null) delete values[field.name];
    else values[field.name] = value;
    onChange();
  };
  const make = MAKERS[field.kind];
  return make(field, values[field.name], set, onChange);
}

function labelled(field, id, control, { note = null, wide = false } = {}) {
  return h(
    "div",
    { class: wide ? "field wide" : "field" },
    h("label", { for: id }, labelOf(field.name), field.required ? h("span", { class: "needed", "aria-hidden": "true" }, " *") : null),
    control,
    note ? h("small", { id: `${id}n` }, note) : null,
  );
}

function text(field, value, set) {
  const id = freshId();
  const oninput = (event) => set(event.target.value === "" ? undefined : event.target.value);
  const shared = { id, oninput, value: value ?? "", maxlength: field.longest, required: field.required, spellcheck: "false" };
  const control = field.kind === "long" ? h("textarea", { ...shared, rows: 3 }) : h("input", { ...shared, type: "text" });
  return labelled(field, id, control, { wide: field.kind === "long" || field.required });
}

function number(field, value, set) {
  const id = freshId();
  const oninput = (event) => set(event.target.value === "" ? undefined : Number(event.target.value));
  const control = h("input", {
    id,
    type: "number",
    inputmode: field.kind === "integer" ? "numeric" : "decimal",
    step: field.kind === "integer" ? 1 : "any",
    min: field.minimum,
    max: field.maximum,
    value: value ?? "",
    placeholder: field.initial ?? t("auto"),
    required: field.required,
    oninput,
  });
  return labelled(field, id, control);
}

function boolean(field, value, set) {
  const id = freshId();
  if (field.optional) {
    return choice({ ...field, kind: "choice", options: [true, false] }, value, set);
  }
  const checked = value ?? field.initial ?? false;
  const onchange = (event) => set(event.target.checked === field.initial ? undefined : event.target.checked);
  return h(
    "div",
    { class: "field check" },
    h("input", { id, type: "checkbox", checked, onchange }),
    h("label", { for: id }, labelOf(field.name)),
  );
}

function choice(field, value, set) {
  const id = freshId();
  const onchange = (event) => set(event.target.value === "" ? undefined : field.options[Number(event.target.value)]);
  const chosen = field.options.indexOf(value);
  const control = h(
    "select",
    { id, onchange, required: field.required },
    field.required ? null : h("option", { value: "" }, t("auto")),
    field.options.map((option, index) =>
      h("option", { value: index, selected: index === chosen }, optionLabel(field.name, option)),
    ),
  );
  if (chosen < 0 && field.required) set(field.options[0]);
  return labelled(field, id, control);
}

function list(field, value, set) {
  const id = freshId();
  const oninput = (event) => {
    const lines = event.target.value.split("\n").filter((line) => line.trim() !== "");
    set(lines.length > 0 ? lines : undefined);
  };
  const control = h("textarea", { id, rows: 2, oninput, value: (value ?? []).join("\n"), "aria-describedby": `${id}n`, spellcheck: "false" });
  return labelled(field, id, control, { note: t("one_per_line"), wide: true });
}

function json(field, value, set) {
  const id = freshId();
  const oninput = (event) => {
    const { target } = event;
    try {
      set(target.value.trim() === "" ? undefined : JSON.parse(target.value));
      target.setCustomValidity("");
    } catch {
      target.setCustomValidity(t("not_json"));
    }
  };
  const shown = value === undefined ? "" : JSON.stringify(value, null, 2);
  const control = h("textarea", { id, rows: 3, class: "code", oninput, value: shown, "aria-describedby": `${id}n`, spellcheck: "false" });
  return labelled(field, id, control, { note: "JSON", wide: true });
}

/** A list of groups of fields, such as the criteria of a judge. */
function objects(field, value, set, onChange) {
  const items = value ?? (field.required ? [{}] : []);
  const rows = h("div", { class: "groups" });
  const changed = () => set(items.length > 0 ? items : undefined);
  const draw = () =>
    replace(
      rows,
      items.map((item, index) =>
        h(
          "div",
          { class: "group" },
          field.fields.map((inner) => widget(inner, item, changed)),
          h("button", { type: "button", class: "quiet", onclick: () => (items.splice(index, 1), changed(), draw()) }, t("remove")),
        ),
      ),
      h("button", { type: "button", class: "quiet", onclick: () => (items.push({}), changed(), draw()) }, t("add_one")),
    );
  draw();
  if (field.required) changed();
  return h("fieldset", { class: "field wide" }, h("legend", {}, labelOf(field.name)), rows);
}

const MAKERS = { text, long: text, integer: number, number, boolean, choice, list, json, objects };
