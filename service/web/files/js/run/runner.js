// Runs a refine, as a stream or as a job, and keeps what the tab needs to go on after a reload.

import { ApiError, send } from "../api.js";
import { readEvents } from "../sse.js";
import { keep, recall } from "../tab.js";
import { initial, isOver, reduce, stop } from "./state.js";

const PATIENCE = [500, 1000, 2000, 4000, 8000]; // milliseconds before each attempt to connect again
const MOST_KEPT = 2_000_000; // characters of events that are kept in the tab
const PASSING = new Set(["writing", "reasoning", "delta"]); // events that a candidate makes superfluous

/** One run at a time. `onChange` gets the state after each change; null for no run. */
export class Runner {
  state = null;
  job = null;
  events = [];
  #abort = null;

  constructor(onChange) {
    this.onChange = onChange;
  }

  get isRunning() {
    return this.state !== null && !isOver(this.state);
  }

  /** Refine now, on this connection. Throws ApiError if the service refuses. */
  async stream(request) {
    this.#begin(request);
    const { signal } = this.#abort;
    const headers = { Accept: "text/event-stream" };
    try {
      const response = await send("POST", "v1/refine", { body: { ...request, stream: true, deltas: true }, headers, signal });
      await this.#read(response, signal);
      if (this.isRunning && !signal.aborted) this.#fail("connection_lost");
    } catch (error) {
      if (!signal.aborted) this.#fail(error);
    }
  }

  /** Refine in the background. Returns the job's id once the service has it. */
  async startJob(request) {
    this.#begin(request);
    const { signal } = this.#abort;
    try {
      const response = await send("POST", "v1/refine", { body: request, headers: { Prefer: "respond-async" }, signal });
      const job = await response.json();
      this.job = job.id;
      this.#keep();
      this.onChange(this.state);
      void this.#follow(signal);
      return job.id;
    } catch (error) {
      if (!signal.aborted) this.#fail(error);
      return null;
    }
  }

  /** Watch a job from its first event. */
  watch(job, request = {}) {
    this.#begin(request);
    this.job = job;
    this.#keep();
    void this.#follow(this.#abort.signal);
  }

  /** Show what a file holds. */
  load(request, events) {
    this.#begin(request);
    this.#take(events);
    if (this.isRunning) this.#set(stop(this.state));
  }

  /** Go on where this tab was before a reload. Returns whether there was a run. */
  resume() {
    const kept = recall("run");
    if (!kept) return false;
    this.#begin(kept.request);
    this.job = kept.job;
    this.#take(kept.events);
    if (this.isRunning && this.job) void this.#follow(this.#abort.signal);
    else if (this.isRunning) this.#set(stop(this.state)); // the stream ended with the page that read it
    return true;
  }

  /** Stop the work and keep the best. A job ends by itself once it is cancelled, and says so in its events. */
  async stop() {
    if (!this.isRunning) return;
    if (this.job) {
      await send("DELETE", `v1/jobs/${this.job}`);
      return;
    }
    this.#abort.abort();
    this.#set(stop(this.state));
    this.#keep();
  }

  /** Forget the run that is shown. A job goes on. */
  clear() {
    this.#abort?.abort();
    this.state = null;
    this.job = null;
    this.events = [];
    keep("run", null);
    this.onChange(null);
  }

  #begin(request) {
    this.#abort?.abort();
    this.#abort = new AbortController();
    this.job = null;
    this.events = [];
    this.#set(initial(request));
    this.#keep();
  }

  async #read(response, signal) {
    for await (const events of readEvents(response)) {
      if (signal.aborted) return;
      if (this.#take(events)) this.#keep();
    }
  }

  /** Read a job's events to the end, and go on after the last one whenever the connection breaks. */
  async #follow(signal) {
    let failures = 0;
    while (this.isRunning && !signal.aborted) {
      const last = this.events.at(-1)?.id;
      try {
        const headers = { Accept: "text/event-stream", ...(last ? { "Last-Event-ID": last } : {}) };
        const response = await send("GET", `v1/jobs/${this.job}/events`, { headers, signal });
        if (response.status === 204) {
          this.#fail("connection_lost");
          return;
        }
        failures = 0;
        await this.#read(response, signal);
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof ApiError && error.status < 500) {
          this.#fail(error);
          return;
        }
      }
      if (!this.isRunning) return;
      if (failures === PATIENCE.length) {
        this.#fail("connection_lost");
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, PATIENCE[failures]));
      failures += 1;
    }
  }

  /** Returns whether there is something to keep among the events. */
  #take(events) {
    const lasting = events.filter(({ name }) => !PASSING.has(name));
    this.events.push(...lasting);
    this.#set(events.reduce(reduce, this.state));
    return lasting.length > 0;
  }

  #fail(error) {
    const problem = error instanceof ApiError ? error.problem : { code: error === "connection_lost" ? error : "unreachable" };
    this.#set({ ...this.state, phase: "failed", writing: new Map(), problem: { ...problem, status: error.status ?? 0 } });
    this.#keep();
  }

  #set(state) {
    this.state = state;
    this.onChange(state);
  }

  #keep = throttled(() => {
    if (this.state === null) return;
    const whole = { request: this.state.request, job: this.job, events: this.events };
    const fits = JSON.stringify(whole).length <= MOST_KEPT && keep("run", whole);
    // Too much for the tab: a job can be read again from its first event.
    if (!fits) keep("run", this.job ? { ...whole, events: [] } : null);
  });
}

/** At once, and then at most every second, with a last call for what came in between. */
function throttled(work) {
  let timer = null;
  let missed = false;
  const run = () => {
    missed = false;
    work();
    timer = setTimeout(() => {
      timer = null;
      if (missed) run();
    }, 1000);
  };
  const call = () => {
    if (timer === null) run();
    else missed = true;
  };
  addEventListener("pagehide", () => missed && work());
  return call;
}
