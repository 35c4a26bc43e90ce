// What is stated in the form, and the request that it makes.

/** An empty form. */
export function blank() {
  return {
    mode: "prompt",
    prompt: "",
    messages: [{ role: "user", content: "" }],
    task: "general",
    parameters: {},
    evaluators: [],
    search: {},
    stop: {},
    budget: {},
    sampling: {},
    judge: null,
    draft: "",
    background: false,
    store: false,
  };
}

/** The refine request of a form. Parts without a value are left out. */
export function toRequest(form) {
  const request = {};
  if (form.mode === "chat") request.messages = form.messages.filter((message) => message.content.trim() !== "");
  else request.prompt = form.prompt;
  if (form.task !== "general") request.task = form.task;
  for (const part of ["parameters", "search", "stop", "budget", "sampling"]) {
    if (Object.keys(form[part]).length > 0) request[part] = form[part];
  }
  if (form.evaluators.length > 0) request.evaluators = form.evaluators;
  if (form.judge !== null) request.judge = form.judge;
  if (form.draft.trim() !== "") request.draft = form.draft;
  if (form.store) request.store = true;
  return structuredClone(request);
}

/** The form that states a request. Fields that the form does not have are lost. */
export function fromRequest(request) {
  const form = { ...blank(), ...structuredClone(request) };
  form.mode = request.messages ? "chat" : "prompt";
  if (request.messages) form.messages = request.messages.map(({ role, content }) => ({ role, content: textOf(content) }));
  for (const name of ["stream", "trace"]) delete form[name];
  return form;
}

/** Whether there is something to answer. */
export function isComplete(form) {
  if (form.mode === "prompt") return form.prompt.trim() !== "";
  return form.messages.at(-1)?.content.trim() !== "" && form.messages.length > 0;
}

function textOf(content) {
  if (typeof content === "string") return content;
  return content.map((part) => part.text ?? "").join("");
}
