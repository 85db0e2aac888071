// Builds elements. Text is only ever set as text, never parsed as HTML.

/** Return the element with this id. */
export const byId = (id) => document.getElementById(id);

/** Return a new element: `make("p", { class: "note" }, "text", otherElement)`. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  set(element, attributes);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Return a new SVG element. */
export function draw(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  set(element, attributes);
  element.append(...children);
  return element;
}

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
}

/** Return a count with separators. */
export const count = (value) => Number(value).toLocaleString("en-US", { maximumFractionDigits: 0 });

/** Return a count with its noun: `plural(1, "probe")`. */
export const plural = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

/** Return seconds with two digits. */
export const seconds = (value) => `${value.toFixed(2)} s`;

/** Return a horizontal bar from 0 to `share` of its width, with a tick at `tick`. */
export function bar(share, { tick = null, kind = "" } = {}) {
  const within = (value) => Math.min(Math.max(value, 0), 1) * 100;
  const parts = [
    draw("rect", { class: "track", width: 100, height: 8 }),
    draw("rect", { class: `fill ${kind}`, width: within(share), height: 8 }),
  ];
  if (tick !== null) {
    parts.push(draw("rect", { class: "tick", x: Math.min(within(tick), 99), width: 1, height: 8 }));
  }
  return draw("svg", { class: "bar", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" }, ...parts);
}
