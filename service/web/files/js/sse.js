// Server-sent events (WHATWG HTML, section 9.2.6), read from a response, because EventSource sends neither a body nor
// a key.

/** Decodes one stream, chunk by chunk. An event that is cut off is never returned. */
export class EventDecoder {
  #rest = "";
  #name = "";
  #data = [];
  #id = null;

  /** The events that a chunk completes, as {name, data, id}; data is parsed JSON. */
  feed(chunk) {
    const events = [];
    const text = this.#rest + chunk;
    // A carriage return at the end may be half of a line's end.
    const whole = text.endsWith("\r") ? text.slice(0, -1) : text;
    const lines = whole.split(/\r\n|\n|\r/);
    this.#rest = lines.pop() + text.slice(whole.length);
    for (const line of lines) {
      if (line !== "") {
        this.#take(line);
        continue;
      }
      if (this.#data.length > 0) {
        const data = JSON.parse(this.#data.join("\n"));
        events.push({ name: this.#name || "message", data, id: this.#id });
      }
      this.#name = "";
      this.#data = [];
    }
    return events;
  }

  #take(line) {
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#name = value;
    else if (field === "id") this.#id = value;
  }
}

/** The events of a streamed response, in batches: those that one chunk completes come together. */
export async function* readEvents(response) {
  const decoder = new EventDecoder();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const events = decoder.feed(value);
      if (events.length > 0) yield events;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
