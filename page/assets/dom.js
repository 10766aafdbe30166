// Small helpers to make elements and to change only what has changed, so that focus, selections and what was opened stay.
// Knows nothing about what is shown.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else setAttribute(element, name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** An element of HTML. Attributes that are false, null or undefined are left out; `on...` listens. */
export const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

/** An element of SVG. */
export const s = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

export const byId = (id) => document.getElementById(id);

export function setAttribute(element, name, value) {
  if (value === false || value === null || value === undefined) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value === true ? "" : String(value));
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A list of keyed elements: `make(item)` for those that are new, `update(element, item)` for all, in their order. */
export function keyed(parent, items, key, make, update) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let child = known.get(name);
    if (child) known.delete(name);
    else {
      child = make(item);
      child.dataset.key = name;
    }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    update(child, item);
  }
  known.forEach((gone) => gone.remove());
}

/** Rows of texts in a table's body; the first cell of each is its header. */
export function setRows(body, rows) {
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, index) => {
    const row = body.rows[index] ?? body.insertRow();
    cells.forEach((text, place) => {
      const cell = row.cells[place] ?? row.appendChild(place === 0 ? h("th", { scope: "row" }) : h("td"));
      setText(cell, String(text));
    });
  });
}

/** A table with a caption for those who hear it, in a box of its own that scrolls where it is too wide. */
export function table(caption, heads) {
  const body = h("tbody");
  const head = h("thead", {}, h("tr", {}, ...heads.map((text) => h("th", { scope: "col" }, text))));
  const element = h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", { class: "heard" }, caption), head, body));
  return { element, body };
}

const counts = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

export const count = (value) => counts.format(Number(value ?? 0));
export const compact = (value) => short.format(Number(value ?? 0));

/** Bytes in the unit that people would say. */
export function bytes(value) {
  let [number, unit] = [Number(value ?? 0), 0];
  for (; number >= 1024 && unit < 4; unit += 1) number /= 1024;
  return `${unit === 0 || number >= 100 ? number.toFixed(0) : number.toFixed(1)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

/** A probability as people read it. */
export function percent(probability) {
  const value = 100 * probability;
  if (value > 0 && value < 0.1) return "< 0.1 %";
  return `${value >= 99.95 ? value.toFixed(0) : value.toFixed(1)} %`;
}

export function milliseconds(value) {
  if (value >= 1000) return `${(value / 1000).toFixed(2)} s`;
  return `${value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)} ms`;
}

/** `RULE_LOG_LINEAR` as `log-linear`. */
export const ruleName = (rule) => ({
  RULE_WEIGHTED_AVERAGE: "weighted average",
  RULE_THRESHOLD_VOTE: "threshold vote",
  RULE_LOG_LINEAR: "log-linear",
  RULE_LOGIT_MEAN: "logit mean",
  RULE_LOGIT_MAX: "logit max",
}[rule] ?? String(rule ?? "unknown"));
