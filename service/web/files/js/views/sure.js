// A button for what is not done by accident: the first press asks, the second one acts.

import { h } from "../dom.js";

const PATIENCE = 5000; // milliseconds until the question is withdrawn

/** label: what the button says. question: what it says then. act may return a promise. */
export function sure(label, question, act, { disabled = false } = {}) {
  const button = h("button", { type: "button", disabled, onclick: press }, label);
  let timer = null;

  function rest() {
    timer = null;
    button.textContent = label;
    button.classList.remove("strong");
  }

  async function press() {
    if (timer === null) {
      button.textContent = question;
      button.classList.add("strong");
      timer = setTimeout(rest, PATIENCE);
      return;
    }
    clearTimeout(timer);
    rest();
    button.disabled = true;
    await act();
    button.disabled = false;
  }

  return button;
}
