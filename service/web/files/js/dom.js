// Elements without markup: every text becomes a text node, whatever it contains.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.setAttribute("class", value);
    else if (name === "value" || name === "checked" || name === "selected" || name === "open") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children) {
    if (Array.isArray(child)) append(element, child);
    else if (child instanceof Node) element.append(child);
    else if (child !== null && child !== undefined && child !== false) element.append(String(child));
  }
}

/** An HTML element. Properties that begin with "on" are listeners; null and false are left out. */
export function h(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** An SVG element. */
export function s(tag, properties, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

/** Put children in the place of those that are there. */
export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

let names = 0;

/** An id for a label and its field. */
export function freshId() {
  names += 1;
  return `f${names}`;
}

/** Call a function at most once a frame, with the newest arguments. */
export function onceAFrame(work) {
  let waiting = null;
  return (...given) => {
    const isFirst = waiting === null;
    waiting = given;
    if (!isFirst) return;
    requestAnimationFrame(() => {
      const newest = waiting;
      waiting = null;
      work(...newest);
    });
  };
}
