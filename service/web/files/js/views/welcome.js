// What is shown before the first run.

import { h } from "../dom.js";
import { examples, t } from "../i18n.js";

/** onExample gets a request, onFile a file that may hold a run. */
export function welcome(onExample, onFile) {
  const chooser = h("input", { type: "file", accept: ".json,application/json", class: "unseen", tabindex: "-1", "aria-hidden": "true", onchange: () => chooser.files[0] && onFile(chooser.files[0]) });
  return h(
    "section",
    { class: "welcome" },
    h("p", { class: "proof", "aria-hidden": "true" }, h("del", {}, t("drafts")), " ", h("ins", {}, t("result"))),
    h("h1", {}, t("empty_title")),
    h("p", { class: "lead" }, t("empty_text")),
    h("h2", {}, t("try_one")),
    h("ul", { class: "examples" }, examples().map(({ title, request }) => h("li", {}, h("button", { type: "button", onclick: () => onExample(request) }, h("b", {}, title), h("span", {}, request.prompt))))),
    chooser,
    h("button", { type: "button", class: "quiet", onclick: () => chooser.click() }, t("open_file")),
  );
}
