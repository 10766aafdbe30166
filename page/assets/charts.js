// Charts of the last minutes, drawn from what the coordinator has counted, each with the same numbers as a table.
// Knows nothing about where the numbers come from.

import { h, s, setAttribute, setRows, setText, table } from "./dom.js";

/** Seconds that are shown. */
export const SPAN = 300;
const [HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [170, 40, 8, 10, 22];
/** Where fewer minutes are written below. */
const NARROW = 420;
/** Seconds between two rows of the table. */
const ROW = 15;

/** The next number of 1, 2, 2.5, 5 times a power of ten. */
function nice(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value * (1 - 1e-9));
}

export class Chart {
  /** `series` is a list of {name, dashed}; `format` writes a value. */
  constructor({ id, title, unit, series, format }) {
    Object.assign(this, { title, unit, format, series, points: [], top: 1, width: 480 });
    const names = [`${id}-title`, `${id}-desc`];
    this.description = s("desc", { id: names[1] });
    this.grid = s("g", { class: "grid" });
    this.lines = series.map((line, index) => ({
      area: index === 0 ? s("path", { class: "area" }) : null,
      path: s("path", { class: line.dashed ? "line dashed" : "line" }),
    }));
    this.cursor = s("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
    this.svg = s("svg", { role: "img", "aria-labelledby": names.join(" ") },
      s("title", { id: names[0] }, title), this.description, this.grid,
      ...this.lines.flatMap(({ area, path }) => (area ? [area, path] : [path])), this.cursor);
    new ResizeObserver(([{ contentRect }]) => this.resize(contentRect.width)).observe(this.svg);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.point(null));
    this.values = series.map(() => h("b"));
    this.when = h("span", { class: "when" });
    const key = series.map((line, index) => h("span", { class: "key" },
      s("svg", { viewBox: "0 0 24 8", "aria-hidden": "true" }, s("path", { class: line.dashed ? "line dashed" : "line", d: "M1 4H23" })),
      `${line.name} `, this.values[index]));
    this.table = table(`${title}, ${unit}`, ["Seconds ago", ...series.map((line) => line.name)]);
    this.details = h("details", { ontoggle: () => this.draw() }, h("summary", {}, "As a table", h("span", { class: "heard" }, `: ${title}`)), this.table.element);
    this.element = h("figure", { class: "chart" },
      h("figcaption", {}, h("h3", {}, title, h("span", { class: "unit" }, unit)), h("p", { class: "legend" }, ...key, this.when)),
      this.svg, this.details);
    this.resize(this.width);
  }

  /** One more point: a time in seconds, and a value for each series, or null where there is none. */
  add(time, values) {
    this.points.push({ time, values });
    while (this.points[0].time < time - SPAN) this.points.shift();
    this.draw();
  }

  /** One unit of the drawing is a pixel, so that letters stay as large as they are. */
  resize(width) {
    if (width === 0) return;
    this.width = width;
    setAttribute(this.svg, "viewBox", `0 0 ${width} ${HEIGHT}`);
    this.draw();
  }

  get now() {
    return this.points.at(-1)?.time ?? 0;
  }

  x(time) {
    return LEFT + (this.width - LEFT - RIGHT) * (1 - (this.now - time) / SPAN);
  }

  y(value) {
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / this.top);
  }

  draw() {
    const known = this.points.flatMap(({ values }) => values.filter((value) => value !== null));
    this.top = nice(Math.max(...known, 0));
    this.drawGrid();
    this.lines.forEach(({ area, path }, index) => {
      const runs = this.runs(index);
      const line = runs.map((run) => `M${run.join("L")}`).join("");
      setAttribute(path, "d", line || null);
      const floor = this.y(0).toFixed(1);
      const closed = runs.map((run) => `M${run[0].split(" ")[0]} ${floor}L${run.join("L")}L${run.at(-1).split(" ")[0]} ${floor}Z`);
      if (area) setAttribute(area, "d", closed.join("") || null);
    });
    if (!this.pointed) this.tell(this.points.at(-1), "");
    this.describe(known);
    if (this.details.open) this.fillTable();
  }

  /** The points of a series, in pieces without gaps. */
  runs(index) {
    const runs = [[]];
    for (const { time, values } of this.points) {
      if (values[index] === null) runs.push([]);
      else runs.at(-1).push(`${this.x(time).toFixed(1)} ${this.y(values[index]).toFixed(1)}`);
    }
    return runs.filter((run) => run.length > 0);
  }

  drawGrid() {
    const written = `${this.top} ${this.width}`;
    if (this.grid.dataset.drawn === written) return;
    this.grid.dataset.drawn = written;
    const rows = [0, 0.5, 1].map((share) => {
      const y = this.y(share * this.top);
      return [s("line", { x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y }), s("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, String(Number((share * this.top).toPrecision(3))))];
    });
    const columns = (this.width < NARROW ? [0, 2, 4] : [0, 1, 2, 3, 4]).map((minutes) => {
      const x = LEFT + (this.width - LEFT - RIGHT) * (1 - minutes * 60 / SPAN);
      const anchor = minutes === 0 ? "end" : "middle";
      return s("text", { x, y: HEIGHT - 6, "text-anchor": anchor }, minutes === 0 ? "now" : `−${minutes} min`);
    });
    this.grid.replaceChildren(...rows.flat(), ...columns);
  }

  /** Shows the values at the pointer, or the last ones. */
  point(event) {
    this.pointed = event !== null && this.points.length > 0;
    setAttribute(this.cursor, "visibility", this.pointed ? "visible" : "hidden");
    if (!this.pointed) return this.tell(this.points.at(-1), "");
    const box = this.svg.getBoundingClientRect();
    const at = event.clientX - box.left;
    const nearest = this.points.reduce((best, one) => (Math.abs(this.x(one.time) - at) < Math.abs(this.x(best.time) - at) ? one : best));
    setAttribute(this.cursor, "x1", this.x(nearest.time));
    setAttribute(this.cursor, "x2", this.x(nearest.time));
    return this.tell(nearest, `${Math.round(this.now - nearest.time)} s ago`);
  }

  tell(point, when) {
    this.values.forEach((element, index) => setText(element, this.written(point?.values[index] ?? null)));
    setText(this.when, when);
  }

  written(value) {
    return value === null ? "–" : this.format(value);
  }

  describe(known) {
    const last = this.series.map((line, index) => `${line.name} ${this.written(this.points.at(-1)?.values[index] ?? null)}`);
    const most = known.length > 0 ? `; the highest of the last ${SPAN / 60} minutes is ${this.format(Math.max(...known))}` : "";
    setText(this.description, `In ${this.unit}, now: ${last.join(", ")}${most}.`);
  }

  fillTable() {
    const rows = [];
    for (let index = this.points.length - 1; index >= 0; index -= 1) {
      const { time, values } = this.points[index];
      const ago = Math.round(this.now - time);
      if (rows.length === 0 || ago >= rows.at(-1)[0] + ROW) rows.push([ago, ...values.map((value) => this.written(value))]);
    }
    setRows(this.table.body, rows);
  }
}
