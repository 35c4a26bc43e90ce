// Words in the person's language. Strings are data, in strings/.

import { keepLook, recallLook } from "./tab.js";
import { en } from "./strings/en.js";
import { zh } from "./strings/zh.js";

const LANGUAGES = { en, zh };

function preferred() {
  const kept = recallLook("language");
  if (kept in LANGUAGES) return kept;
  return navigator.languages.map((tag) => tag.split("-")[0]).find((tag) => tag in LANGUAGES) ?? "en";
}

let language = preferred();

export const currentLanguage = () => language;

export function setLanguage(name) {
  language = name;
  keepLook("language", name);
  document.documentElement.lang = name === "zh" ? "zh-CN" : name;
}

/** A sentence, with its {places} filled. */
export function t(name, places = {}) {
  const sentence = LANGUAGES[language].words[name] ?? en.words[name];
  return sentence.replace(/\{(\w+)\}/g, (whole, place) => places[place] ?? whole);
}

/** What a field of the API is called. One that has no name here is shown by its own. */
export const labelOf = (name) => LANGUAGES[language].fields[name] ?? humane(name);

/** What an evaluator is called. */
export const evaluatorLabel = (type) => LANGUAGES[language].evaluators[type] ?? humane(type);

/** What a value of a field is called. */
export function optionLabel(field, option) {
  if (option === true) return t("yes");
  if (option === false) return t("no");
  return LANGUAGES[language].options[`${field}.${option}`] ?? LANGUAGES[language].options[option] ?? humane(String(option));
}

/** Why a run ended. */
export const reasonLabel = (reason) => LANGUAGES[language].reasons[reason] ?? humane(reason);

/** What went wrong, for people; null if the problem's own detail says it best. */
export const problemLabel = (code) => LANGUAGES[language].problems[code] ?? null;

export const examples = () => LANGUAGES[language].examples;

export function formatNumber(value, digits = 0) {
  return new Intl.NumberFormat(language, { maximumFractionDigits: digits, minimumFractionDigits: digits }).format(value);
}

function humane(name) {
  const words = name.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

setLanguage(language);
