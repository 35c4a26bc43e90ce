// The dialog that asks for a key.

import { get, key, setKey } from "../api.js";
import { freshId, h } from "../dom.js";
import { t } from "../i18n.js";

/** Ask for a key and try it. Resolves to whether there is one that the service knows. */
export function askForKey() {
  return new Promise((resolve) => {
    const id = freshId();
    const field = h("input", { id, type: "password", autocomplete: "off", value: key() ?? "", "aria-describedby": `${id}n` });
    const complaint = h("p", { class: "complaint", role: "alert", hidden: true });
    const dialog = h(
      "dialog",
      { class: "key", "aria-labelledby": `${id}t`, onclose: () => (dialog.remove(), resolve(Boolean(key()))) },
      h(
        "form",
        { onsubmit: use },
        h("h2", { id: `${id}t` }, t("key_title")),
        h("p", { id: `${id}n`, class: "hint" }, t("key_text")),
        h("div", { class: "field wide" }, h("label", { for: id }, t("key_field")), field),
        complaint,
        h(
          "div",
          { class: "tools" },
          h("button", { type: "submit", class: "strong" }, t("key_save")),
          key() ? h("button", { type: "button", onclick: forget }, t("key_forget")) : null,
          h("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, t("close")),
        ),
      ),
    );

    async function use(event) {
      event.preventDefault();
      setKey(field.value.trim());
      try {
        await get("v1/tasks");
        dialog.close();
      } catch (error) {
        setKey(null);
        complaint.textContent = error.status === 401 ? t("key_wrong") : error.message;
        complaint.hidden = false;
        field.select();
      }
    }

    function forget() {
      setKey(null);
      dialog.close();
    }

    document.body.append(dialog);
    dialog.showModal();
  });
}
