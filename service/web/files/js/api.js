// The API, as any other client uses it. Addresses are relative, so the page also works below a path of a proxy.

import { keep, recall } from "./tab.js";

/** An answer that is not a success. `problem` is the problem document, as far as there is one. */
export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `HTTP ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

export const key = () => recall("key");
export const setKey = (value) => keep("key", value || null);

/** Send a request and return its response. Throws ApiError, and TypeError if the service cannot be reached. */
export async function send(method, path, { body, headers = {}, signal } = {}) {
  const secret = key();
  const response = await fetch(new URL(path, document.baseURI), {
    method,
    signal,
    headers: {
      ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      ...(secret ? { Authorization: `Bearer ${secret}` } : {}),
      ...headers,
    },
    body: body === undefined ? undefined : JSON.stringify(body),
    credentials: "omit",
    cache: "no-store",
  });
  if (response.ok) return response;
  throw new ApiError(response.status, await response.json().catch(() => ({})));
}

export async function get(path) {
  return (await send("GET", path)).json();
}
