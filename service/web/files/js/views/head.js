// The head of the page: the name, the sections, and the person's settings.

import { h } from "../dom.js";
import { currentLanguage, setLanguage, t } from "../i18n.js";
import { keepLook, recallLook } from "../tab.js";

const THEMES = ["auto", "light", "dark"];
const SIGNS = { auto: "◐", light: "☀", dark: "☾" };

/** Apply the theme that was chosen last. */
export function applyTheme() {
  const theme = recallLook("theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

/** section: "refine", "jobs" or "learning". actions: {go(section), key(), redraw()}. */
export function head(features, section, actions) {
  const tab = (name) => h("a", { href: `#${name}`, "aria-current": section === name ? "page" : null }, t(name));
  const sections = ["refine", "jobs", "learning"].filter((name) => name === "refine" || features[name]);
  return h(
    "header",
    { class: "top" },
    h("a", { class: "brand", href: "#refine" }, h("span", { class: "wordmark" }, "Re", h("i", {}, "draft")), h("span", { class: "tagline" }, t("tagline"))),
    sections.length > 1 ? h("nav", { "aria-label": t("nav") }, sections.map(tab)) : null,
    h(
      "div",
      { class: "settings" },
      features.keys ? h("button", { type: "button", class: "quiet", onclick: actions.key }, t("key")) : null,
      h("button", { type: "button", class: "quiet", lang: currentLanguage() === "en" ? "zh-CN" : "en", onclick: switchLanguage }, t("language").split(": ")[1]),
      themeButton(),
    ),
  );

  function switchLanguage() {
    setLanguage(currentLanguage() === "en" ? "zh" : "en");
    actions.redraw();
  }
}

function themeButton() {
  const button = h("button", { type: "button", class: "quiet icon", onclick: next });
  const current = () => recallLook("theme") ?? "auto";
  function show() {
    button.textContent = SIGNS[current()];
    const label = `${t("theme")}: ${t(`theme_${current()}`)}`;
    button.setAttribute("aria-label", label);
    button.title = label;
  }
  function next() {
    keepLook("theme", THEMES[(THEMES.indexOf(current()) + 1) % THEMES.length]);
    applyTheme();
    show();
  }
  show();
  return button;
}
