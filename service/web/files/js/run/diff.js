// What a revision changed, word by word, by the shortest edit script (Myers, 1986). It is bounded: what is too
// different is shown as one replacement.

const MOST_EDITS = 600;
const WORD = /\s+|[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]|[^\s\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]+/gu;

/** The changes from one text to another, as [{op, text}] with op equal, delete or insert. */
export function diff(before, after) {
  const old = before.match(WORD) ?? [];
  const now = after.match(WORD) ?? [];
  let start = 0;
  while (start < old.length && start < now.length && old[start] === now[start]) start += 1;
  let end = 0;
  const most = Math.min(old.length, now.length) - start;
  while (end < most && old[old.length - 1 - end] === now[now.length - 1 - end]) end += 1;
  const changes = [
    ...old.slice(0, start).map((text) => ({ op: "equal", text })),
    ...middle(old.slice(start, old.length - end), now.slice(start, now.length - end)),
    ...old.slice(old.length - end).map((text) => ({ op: "equal", text })),
  ];
  return joined(changes);
}

function middle(old, now) {
  const replaced = [
    ...old.map((text) => ({ op: "delete", text })),
    ...now.map((text) => ({ op: "insert", text })),
  ];
  if (old.length === 0 || now.length === 0 || Math.abs(old.length - now.length) > MOST_EDITS) return replaced;
  const trace = edits(old, now);
  return trace === null ? replaced : backtrack(trace, old, now);
}

/** The furthest reaching paths of each number of edits, up to the one that ends; null if there are too many. */
function edits(old, now) {
  const most = Math.min(old.length + now.length, MOST_EDITS);
  const furthest = new Map([[1, 0]]);
  const trace = [];
  for (let d = 0; d <= most; d += 1) {
    trace.push(new Map(furthest));
    for (let k = -d; k <= d; k += 2) {
      const down = k === -d || (k !== d && (furthest.get(k - 1) ?? -1) < (furthest.get(k + 1) ?? -1));
      let x = down ? furthest.get(k + 1) : furthest.get(k - 1) + 1;
      let y = x - k;
      while (x < old.length && y < now.length && old[x] === now[y]) {
        x += 1;
        y += 1;
      }
      furthest.set(k, x);
      if (x >= old.length && y >= now.length) return trace;
    }
  }
  return null;
}

function backtrack(trace, old, now) {
  const changes = [];
  let x = old.length;
  let y = now.length;
  for (let d = trace.length - 1; d >= 0; d -= 1) {
    const furthest = trace[d];
    const k = x - y;
    const down = k === -d || (k !== d && (furthest.get(k - 1) ?? -1) < (furthest.get(k + 1) ?? -1));
    const previous = down ? k + 1 : k - 1;
    const fromX = furthest.get(previous);
    const fromY = fromX - previous;
    while (x > fromX && y > fromY && x > 0 && y > 0) {
      x -= 1;
      y -= 1;
      changes.push({ op: "equal", text: old[x] });
    }
    if (d === 0) break;
    if (down) changes.push({ op: "insert", text: now[fromY] });
    else changes.push({ op: "delete", text: old[fromX] });
    x = fromX;
    y = fromY;
  }
  return changes.reverse();
}

/** Neighbours of a kind as one change. */
function joined(changes) {
  const found = [];
  for (const change of changes) {
    const last = found.at(-1);
    if (last?.op === change.op) last.text += change.text;
    else found.push({ ...change });
  }
  return found;
}
