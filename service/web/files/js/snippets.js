// A request as a person would send it by hand.

/** For a shell. The key, if there is one, is named and not shown. */
export function asCurl(request, base, needsKey) {
  const body = JSON.stringify(request, null, 2).replaceAll("'", "'\\''");
  const lines = [`curl ${new URL("v1/refine", base)} \\`, `  -H 'Content-Type: application/json' \\`];
  if (needsKey) lines.push(`  -H "Authorization: Bearer $REDRAFT_KEY" \\`);
  return `${lines.join("\n")}\n  -d '${body}'\n`;
}

/** For the Python client. */
export function asPython(request, base, needsKey) {
  const url = pythonText(base.replace(/\/$/, ""));
  const client = needsKey ? `Redraft(${url}, api_key=os.environ["REDRAFT_KEY"])` : `Redraft(${url})`;
  const fields = Object.entries(request).map(([name, value]) => `        ${name}=${python(value, 8)},`);
  return [
    ...(needsKey ? ["import os", ""] : []),
    "from redraft import Redraft",
    "",
    `with ${client} as client:`,
    "    result = client.refine(",
    ...fields,
    "    )",
    "    print(result.text)",
    "",
  ].join("\n");
}

function python(value, indent) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value === "number") return String(value);
  if (typeof value === "string") return pythonText(value);
  const inner = " ".repeat(indent + 4);
  const outer = " ".repeat(indent);
  const isList = Array.isArray(value);
  const items = isList ? value.map((item) => python(item, indent + 4)) : Object.entries(value).map(([name, item]) => `${pythonText(name)}: ${python(item, indent + 4)}`);
  const [open, close] = isList ? "[]" : "{}";
  const short = `${open}${items.join(", ")}${close}`;
  if (short.length <= 72 && !short.includes("\n")) return short;
  return `${open}\n${items.map((item) => `${inner}${item},\n`).join("")}${outer}${close}`;
}

/** JSON's escapes are Python's, but for half a surrogate pair, which neither of them can send. */
const pythonText = (text) => JSON.stringify(text);
