// The text that came out, and what to do with it.

import { send } from "../api.js";
import { h, replace } from "../dom.js";
import { t } from "../i18n.js";
import { best, isOver } from "../run/state.js";
import { asCurl, asPython } from "../snippets.js";
import { textBlock } from "./text.js";
import { scoreText, verdict } from "./score.js";

/** What files with runs are recognised by. */
export const FILE_FORMAT = "redraft-run";

/** actions: {save(), reuse()}; features: what the service offers. */
export function resultView(features, actions) {
  const element = h("section", { class: "result", "aria-label": t("result"), hidden: true });
  let drawn = null;

  function update(state) {
    const candidate = best(state);
    const over = isOver(state);
    element.hidden = candidate === null;
    if (candidate === null || (drawn && drawn.candidate === candidate && drawn.over === over)) return;
    drawn = { candidate, over };
    const text = state.result?.text ?? candidate.text;
    replace(
      element,
      h(
        "header",
        {},
        h("h2", {}, t(over ? "result" : "result_so_far")),
        h("span", { class: `tag ${verdict(candidate)}` }, scoreText(state.result?.score ?? candidate.score)),
        over && state.result ? h("span", { class: "hint" }, t(state.result.improved ? "improved" : "first_draft")) : null,
      ),
      textBlock(text, "final"),
      over ? tools(state, text) : null,
      over && features.stored_traces && state.request.store && state.result ? feedback(state, text) : null,
    );
  }

  function tools(state, text) {
    const base = document.baseURI;
    const isKnown = Object.keys(state.request).length > 0; // not of a job that was started elsewhere
    return h(
      "div",
      { class: "tools" },
      copier(t("copy"), () => text, "strong"),
      isKnown ? copier(t("as_curl"), () => asCurl(state.request, base, features.keys)) : null,
      isKnown ? copier(t("as_python"), () => asPython(state.request, base, features.keys)) : null,
      h("button", { type: "button", onclick: actions.save }, t("save")),
      isKnown ? h("button", { type: "button", onclick: actions.reuse }, t("reuse")) : null,
    );
  }

  return { element, update };
}

function copier(label, text, className = "") {
  const button = h("button", { type: "button", class: className, onclick: copy }, label);
  async function copy() {
    await write(text());
    button.textContent = t("copied");
    setTimeout(() => (button.textContent = label), 1500);
  }
  return button;
}

/** Without TLS, browsers have no clipboard for a page; selecting and copying still works. */
async function write(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text).catch(() => copySelected(text));
    return;
  }
  copySelected(text);
}

function copySelected(text) {
  const field = h("textarea", { class: "unseen", value: text });
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

function feedback(state, text) {
  const note = h("span", { class: "kept", role: "status" });
  const say = async (kind, value) => {
    try {
      await send("POST", "v1/feedback", { body: { program: state.id, kind, value } });
      note.textContent = t("thanks");
    } catch (error) {
      note.textContent = error.message;
    }
  };
  const thumb = (value, label) => {
    const button = h("button", { type: "button", class: "thumb", "aria-pressed": "false", onclick: press }, t(label));
    function press() {
      for (const other of thumbs) other.setAttribute("aria-pressed", String(other === button));
      void say("thumb", value);
    }
    return button;
  };
  const thumbs = [thumb("up", "good"), thumb("down", "bad")];
  const field = h("textarea", { rows: 6, "aria-label": t("your_version"), value: text });
  const editor = h("details", { class: "seldom" }, h("summary", {}, t("edit")), field, h("button", { type: "button", onclick: () => say("edit", field.value) }, t("send_edit")));
  return h("div", { class: "feedback" }, h("div", { class: "thumbs" }, h("span", {}, t("feedback")), thumbs, note), editor);
}
