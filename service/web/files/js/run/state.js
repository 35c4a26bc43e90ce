// A refine as the page knows it: a pure function of the events so far. Streams, jobs, reloads and files all end here.

/** Before the first event. `request` is what was sent. */
export function initial(request) {
  return {
    request,
    phase: "waiting", // then running, and last done, stopped or failed
    id: null,
    models: null,
    judgeTrust: null,
    round: 0,
    rounds: [], // {number, incumbent, accepted, gain, tokens}
    candidates: new Map(), // by id, in the order of their arrival
    writing: new Map(), // texts at work, by their places: {round, index, form, parent, text, isThinking, lost}
    hasPieces: false, // whether texts are told while they are written
    critiques: [], // {round, candidate, issues, remarks, fault_probability}
    incumbent: null,
    tokens: 0,
    result: null, // the whole response
    problem: null,
  };
}

/** The state after an event. Parts that did not change stay the same objects. */
export function reduce(state, { name, data }) {
  switch (name) {
    case "started":
      return { ...state, phase: "running", id: data.id, models: data.models, judgeTrust: data.judge_trust };
    case "writing":
      return begun({ ...state, phase: "running", round: data.round, hasPieces: true }, data);
    case "reasoning":
      return grown(state, data, { isThinking: true });
    case "delta":
      return grown(state, data, { isThinking: false });
    case "candidate":
      state.writing.delete(placeOf(data));
      return withCandidate({ ...state, phase: "running", round: data.round }, { ...unknown(state), ...data });
    case "evaluation":
      return evaluated(state, data);
    case "critique":
      return { ...state, round: data.round, critiques: [...state.critiques, data] };
    case "round":
      return rounded(state, data);
    case "done":
      return done(state, data);
    case "error":
      return { ...state, phase: "failed", problem: data, writing: new Map() };
    default:
      return state;
  }
}

/** The person has stopped it: the best so far is the result. */
export function stop(state) {
  return { ...state, phase: "stopped", writing: new Map() };
}

export const isOver = (state) => ["done", "stopped", "failed"].includes(state.phase);

/** The candidate that is the result, or that would be it now. */
export function best(state) {
  const chosen = state.result?.selected.candidate ?? state.incumbent;
  return state.candidates.get(chosen) ?? null;
}

/** Why a candidate is not good enough yet: the issues of its evaluations, with the evaluator and the rule. */
export function issuesOf(candidate) {
  return (candidate.evaluations ?? []).flatMap((evaluation) =>
    evaluation.issues.map((issue) => ({ ...issue, evaluator: evaluation.evaluator, hard: evaluation.hard })),
  );
}

function unknown(state) {
  return { score: null, passed: null, evaluations: null, diff: null, tokens: state.tokens };
}

// The map is the same object all the time, or 2,000 events would copy it 2,000 times. Views compare candidates.
function withCandidate(state, candidate) {
  state.candidates.set(candidate.id, candidate);
  return { ...state, incumbent: state.incumbent ?? candidate.id };
}

const placeOf = ({ round, index }) => `${round}.${index}`;

// As with candidates, the map stays the same object, and views compare its texts.
function begun(state, { round, index, form, parent }) {
  const place = placeOf({ round, index });
  const before = state.writing.get(place);
  const lost = before ? before.lost + 1 : 0;
  state.writing.set(place, { round, index, form, parent, text: "", isThinking: false, lost });
  return state;
}

function grown(state, { round, index, text }, { isThinking }) {
  const place = placeOf({ round, index });
  const known = state.writing.get(place);
  if (!known) return state;
  state.writing.set(place, { ...known, text: isThinking ? known.text : known.text + text, isThinking });
  return { ...state };
}

function evaluated(state, { candidate, score, passed, evaluations, tokens }) {
  const known = state.candidates.get(candidate);
  if (!known) return state;
  const spent = tokens ?? state.tokens;
  state.candidates.set(candidate, { ...known, score, passed, evaluations, tokens: spent });
  return { ...state, tokens: spent, incumbent: leader(state, candidate) };
}

/** Until the round ends, the page shows who leads by score; the service then says who does. */
function leader(state, challenger) {
  if (state.rounds.length > 0) return state.incumbent;
  const lead = state.candidates.get(state.incumbent);
  const next = state.candidates.get(challenger);
  return (next.score ?? -1) > (lead.score ?? -1) ? challenger : state.incumbent;
}

function rounded(state, { round, incumbent, accepted, gain, tokens }) {
  const spent = tokens ?? state.tokens;
  const ended = { number: round, incumbent, accepted, gain, tokens: spent };
  for (const [place, text] of state.writing) if (text.round === round) state.writing.delete(place);
  return { ...state, round, incumbent, tokens: spent, rounds: [...state.rounds, ended] };
}

function done(state, result) {
  for (const round of result.rounds ?? []) {
    for (const body of round.candidates) {
      const known = state.candidates.get(body.id) ?? unknown(state);
      state.candidates.set(body.id, { ...known, ...body, round: round.round });
    }
  }
  const spent = result.usage.total.prompt_tokens + result.usage.total.completion_tokens;
  const ended = { phase: "done", writing: new Map(), tokens: spent };
  return { ...state, ...ended, id: result.id, result, incumbent: result.selected.candidate };
}
