// JSON Schemas as descriptions of fields. What the service adds to its schema appears in the form by itself.

/** A field: {name, kind, required, initial, options, minimum, maximum, longest, item}.
 *
 * kind: text, long, integer, number, boolean, choice, list (of `item`), objects (lists of groups), or json for what
 *     has no widget of its own.
 * fields: those of each object, for kind objects.
 */
export function describe(name, schema, schemas, required = false) {
  const plain = resolve(schema, schemas);
  const field = { name, required, initial: plain.default ?? null, optional: plain.nullable };
  if (plain.enum) return { ...field, kind: "choice", options: plain.enum };
  if (plain.type === "boolean") return { ...field, kind: "boolean" };
  if (plain.type === "integer" || plain.type === "number") {
    const minimum = plain.minimum ?? plain.exclusiveMinimum ?? null;
    return { ...field, kind: plain.type, minimum, maximum: plain.maximum ?? plain.exclusiveMaximum ?? null };
  }
  if (plain.type === "string") {
    const longest = plain.maxLength ?? null;
    return { ...field, kind: longest !== null && longest > 1000 ? "long" : "text", longest };
  }
  if (plain.type === "array" && plain.items) return { ...field, ...listOf(plain, schemas) };
  return { ...field, kind: "json" };
}

/** The fields of an object's schema, those that are needed first. `left` names those to leave out. */
export function fieldsOf(schema, schemas, left = []) {
  const plain = resolve(schema, schemas);
  const needed = plain.required ?? [];
  const fields = Object.entries(plain.properties ?? {})
    .filter(([name]) => !left.includes(name))
    .map(([name, property]) => describe(name, property, schemas, needed.includes(name)));
  return [...fields.filter((field) => field.required), ...fields.filter((field) => !field.required)];
}

/** Every evaluator that a request may name: [{type, description, fields, isJudge}]. */
export function evaluatorsOf(schemas) {
  const { mapping } = schemas.RefineRequest.properties.evaluators.items.discriminator;
  return Object.entries(mapping).map(([type, reference]) => {
    const schema = schemas[nameOf(reference)];
    const fields = fieldsOf(schema, schemas, ["type"]);
    const last = (field) => ["hard", "weight"].includes(field.name);
    const description = (schema.description ?? "").split("\n\n")[0].replaceAll("`", "").replaceAll("\n", " ");
    return {
      type,
      description,
      fields: [...fields.filter((field) => !last(field)), ...fields.filter(last)],
      isJudge: schema.properties.hard === undefined,
    };
  });
}

/** The fields of a part of the request, such as "search". */
export function partOf(schemas, name) {
  return fieldsOf(schemas.RefineRequest.properties[name], schemas);
}

const nameOf = (reference) => reference.split("/").at(-1);

/** The schema without references, and without null as an option. */
function resolve(schema, schemas) {
  if (schema.$ref) return { ...resolve(schemas[nameOf(schema.$ref)], schemas), ...("default" in schema ? { default: schema.default } : {}) };
  if (!schema.anyOf) return schema;
  const options = schema.anyOf.filter((option) => option.type !== "null");
  if (options.length !== 1) return { ...schema, anyOf: undefined, type: "any" };
  return { ...resolve(options[0], schemas), default: schema.default, nullable: options.length < schema.anyOf.length };
}

function listOf(plain, schemas) {
  const item = describe("item", plain.items, schemas);
  const inner = resolve(plain.items, schemas);
  if (inner.type === "object" && inner.properties) return { kind: "objects", fields: fieldsOf(inner, schemas) };
  return ["text", "long"].includes(item.kind) ? { kind: "list", item } : { kind: "json" };
}
