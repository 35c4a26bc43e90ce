// What this tab remembers: the key, the request being written, and the run that is shown. Nothing of it outlives the
// tab. Only the looks (theme and language) are kept for longer.

const PREFIX = "redraft.";

function read(storage, name) {
  try {
    return JSON.parse(storage.getItem(PREFIX + name));
  } catch {
    return null;
  }
}

function write(storage, name, value) {
  try {
    if (value === null) storage.removeItem(PREFIX + name);
    else storage.setItem(PREFIX + name, JSON.stringify(value));
    return true;
  } catch {
    return false; // it is full, or the browser allows none
  }
}

/** What was kept under a name in this tab; null if there is nothing. */
export const recall = (name) => read(sessionStorage, name);

/** Keep a value in this tab; null forgets it. Returns whether there was room. */
export const keep = (name, value) => write(sessionStorage, name, value);

export const recallLook = (name) => read(localStorage, name);
export const keepLook = (name, value) => write(localStorage, name, value);

/** What the service offers: {keys, jobs, stored_traces, learning}. */
export function features() {
  return JSON.parse(document.querySelector("meta[name=redraft-features]").content);
}
