// A line chart on a canvas: lines with gaps, bands where a value stands for many points, hover, zoom.

import { COLOURS, Drawing, LEFT, RIGHT, TOP } from "./drawing.js";
import { number } from "./scale.js";
import { duration, localTime } from "./times.js";

const SMALLEST_DRAG = 6;
const ROWS_OF_TIP = 12;

/** `values` smoothed exponentially, without the pull to zero at the start; null stays null and breaks nothing. */
export function smoothed(values, weight) {
  let sum = 0;
  let weights = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = sum * weight + value * (1 - weight);
    weights = weights * weight + (1 - weight);
    return sum / weights;
  });
}

/** Index of the value in the rising `xs` that is nearest to `x`. */
export function nearest(xs, x) {
  let low = 0;
  let high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle;
    else high = middle;
  }
  return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
}

function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

/**
 * A chart in `host`. `zoomed` is called with [first, last], or null for all, when the user asks for it.
 *
 * A line is {label, colour, x, y, low, high, counts, gaps, exact}; x rises, y has null where there is no finite value.
 */
export class Chart {
  constructor(host, title, zoomed) {
    this.host = host;
    this.title = title;
    this.zoomed = zoomed;
    this.lines = [];
    this.options = { axis: "step", log: false, smooth: 0, view: null, extent: null };
    this.hover = null;
    this.drag = null;
    this.pointers = new Map();
    this.canvas = make("canvas", "");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "img");
    this.tip = make("div", "tip");
    this.tip.hidden = true;
    this.said = make("span", "sr");
    this.said.setAttribute("aria-live", "polite");
    host.append(this.canvas, this.tip, this.said);
    this.listen();
    new ResizeObserver(() => this.draw()).observe(host);
    document.addEventListener("themechange", () => this.draw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  show(lines, options) {
    this.options = options;
    this.lines = lines.map((line) => ({ ...line, smooth: options.smooth ? smoothed(line.y, options.smooth) : null }));
    this.hover = null;
    this.tip.hidden = true;
    this.canvas.setAttribute("aria-label", this.describe());
    this.draw();
  }

  /** What the chart shows, in words. */
  describe() {
    const parts = this.lines.map((line) => {
      const last = line.y.findLast((value) => value !== null);
      return `${line.label}: ${last === undefined ? "no numbers" : `last ${number(last)}`}`;
    });
    return `Chart of ${this.title}. ${parts.join("; ")}. Arrow keys read values.`;
  }

  /** First and last x in view. */
  view() {
    const [first, last] = this.options.view ?? this.options.extent ?? [0, 1];
    return first < last ? [first, last] : [first - 0.5, first + 0.5];
  }

  /** Smallest and largest y in view, with some air; of a logarithmic scale both are positive. */
  range([first, last]) {
    const { log } = this.options;
    let low = Infinity;
    let high = -Infinity;
    for (const line of this.lines) {
      line.x.forEach((x, i) => {
        if (x < first || x > last || line.y[i] === null) return;
        for (const value of line.exact ? [line.y[i]] : [line.low[i], line.high[i]]) {
          if (log && value <= 0) continue;
          if (value < low) low = value;
          if (value > high) high = value;
        }
      });
    }
    if (low > high) return log ? [0.1, 10] : [0, 1];
    if (log) return low === high ? [low / 2, high * 2] : [low / (high / low) ** 0.05, high * (high / low) ** 0.05];
    const air = low === high ? Math.abs(low) / 2 || 1 : high / 20 - low / 20;
    return [low - air, high + air];
  }

  size() {
    return { width: this.host.clientWidth, height: this.host.clientHeight };
  }

  toX(pixel) {
    const [first, last] = this.view();
    return first + ((pixel - LEFT) / (this.size().width - LEFT - RIGHT)) * (last - first);
  }

  draw() {
    const { width, height } = this.size();
    if (!width || !height || !this.lines.length) return;
    const view = this.view();
    this.drawing = new Drawing(this.canvas, { width, height, view, range: this.range(view), log: this.options.log });
    this.drawing.axes(this.options.axis);
    this.drawing.clip();
    for (const line of this.lines) this.drawing.line(line);
    if (this.drag) this.drawing.drag(this.drag.from, this.drag.to);
    if (this.hover !== null) this.drawing.hover(this.hover, this.under(this.hover));
  }

  /** The value of each line that is nearest to `x`. */
  under(x) {
    return this.lines.flatMap((line) => (line.x.length ? [{ line, at: nearest(line.x, x) }] : []));
  }

  xText(x) {
    const { axis } = this.options;
    if (axis === "time") return localTime(x);
    if (axis === "relative") return `after ${duration(x)}`;
    return `${axis === "index" ? "point" : "step"} ${number(x, 12)}`;
  }

  valueText(line, at) {
    const value = line.y[at];
    if (value === null) return line.gaps.find(([x]) => x === line.x[at])?.[1] ?? "no number";
    let text = number(value);
    if (!line.exact && line.counts[at] > 1) {
      text = `mean ${text}, ${number(line.low[at])} to ${number(line.high[at])} in ${line.counts[at]} points`;
    }
    return line.smooth ? `${text} (smoothed ${number(line.smooth[at])})` : text;
  }

  point(x, speaks = false) {
    const under = this.under(x);
    if (!under.length) return;
    const distance = ({ line, at }) => Math.abs(line.x[at] - x);
    const closest = under.reduce((best, other) => (distance(other) < distance(best) ? other : best));
    this.hover = closest.line.x[closest.at];
    const shown = this.under(this.hover).filter(({ line, at }) => line.x[at] === this.hover || this.lines.length < 3);
    this.tip.replaceChildren(make("b", "", this.xText(this.hover)));
    for (const { line, at } of shown.slice(0, ROWS_OF_TIP)) {
      const row = make("div", "row");
      row.append(make("span", `swatch s${line.colour % COLOURS}`), make("span", "", line.label));
      row.append(make("span", "", this.valueText(line, at)));
      this.tip.append(row);
    }
    if (shown.length > ROWS_OF_TIP) this.tip.append(make("div", "quiet", `and ${shown.length - ROWS_OF_TIP} more`));
    if (speaks) this.said.textContent = this.tip.textContent;
    this.tip.hidden = false;
    this.draw();
    const left = this.drawing.px(this.hover);
    const beside = left > this.size().width / 2 ? left - this.tip.offsetWidth - 10 : left + 10;
    this.tip.style.left = `${Math.min(Math.max(beside, 0), Math.max(this.size().width - this.tip.offsetWidth, 0))}px`;
    this.tip.style.top = `${TOP}px`;
  }

  leave() {
    this.hover = null;
    this.tip.hidden = true;
    this.draw();
  }

  zoom(first, last) {
    if (!this.options.extent) return;
    const [low, high] = this.options.extent;
    const view = [Math.max(first, low), Math.min(last, high)];
    if (view[0] < view[1]) this.zoomed(view[0] === low && view[1] === high ? null : view);
  }

  zoomAround(x, factor) {
    const [first, last] = this.view();
    this.zoom(x - (x - first) * factor, x + (last - x) * factor);
  }

  listen() {
    const { canvas } = this;
    const at = (event) => event.clientX - canvas.getBoundingClientRect().left;
    canvas.addEventListener("pointerdown", (event) => {
      this.pointers.set(event.pointerId, at(event));
      canvas.setPointerCapture(event.pointerId);
      if (event.pointerType === "mouse" && event.button === 0) this.drag = { from: at(event), to: at(event) };
      if (this.pointers.size === 2) this.pinch = [...this.pointers.values()].map((pixel) => this.toX(pixel));
      else this.held = this.toX(at(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (this.pointers.has(event.pointerId)) this.pointers.set(event.pointerId, at(event));
      if (this.pointers.size === 2) this.movePinch();
      else if (event.pointerType === "touch" && this.pointers.size === 1 && this.options.view) this.pan(at(event));
      else if (this.drag) {
        this.drag.to = at(event);
        this.draw();
      } else this.point(this.toX(at(event)));
    });
    const release = (event) => {
      this.pointers.delete(event.pointerId);
      const { drag } = this;
      this.drag = null;
      if (!drag || event.type === "pointercancel") return;
      if (Math.abs(drag.to - drag.from) < SMALLEST_DRAG) this.draw();
      else this.zoom(...[drag.from, drag.to].map((pixel) => this.toX(pixel)).sort((a, b) => a - b));
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("pointerleave", () => this.leave());
    canvas.addEventListener("blur", () => this.leave());
    canvas.addEventListener("dblclick", () => this.zoomed(null));
    // What a touchpad makes of a pinch; a plain wheel scrolls the page.
    canvas.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey) return;
        event.preventDefault();
        this.zoomAround(this.toX(at(event)), event.deltaY > 0 ? 1.25 : 0.8);
      },
      { passive: false },
    );
    canvas.addEventListener("keydown", (event) => this.press(event));
  }

  /** Two fingers hold the x that they were put on. */
  movePinch() {
    const [a, b] = [...this.pointers.values()];
    const [xa, xb] = this.pinch;
    if (Math.abs(a - b) < SMALLEST_DRAG || xa === xb) return;
    const scale = (xb - xa) / (b - a);
    if (scale <= 0) return;
    this.zoom(xa + (LEFT - a) * scale, xa + (this.size().width - RIGHT - a) * scale);
  }

  pan(pixel) {
    const [first, last] = this.view();
    const [low, high] = this.options.extent;
    const by = Math.min(Math.max(this.held - this.toX(pixel), low - first), high - last);
    if (by) this.zoom(first + by, last + by);
  }

  press(event) {
    const [first, last] = this.view();
    const x = this.hover ?? first;
    const step = (by) => {
      const near = this.under(x).find(({ line, at }) => line.x[at] === x) ?? this.under(x)[0];
      if (near) this.point(this.hover === null ? near.line.x[near.at] : near.line.x[near.at + by] ?? x, true);
    };
    const centre = this.hover ?? (first + last) / 2;
    const actions = {
      ArrowRight: () => step(1),
      ArrowLeft: () => step(-1),
      "+": () => this.zoomAround(centre, 0.5),
      "-": () => this.zoomAround(centre, 2),
      0: () => this.zoomed(null),
      Escape: () => (this.hover === null ? this.zoomed(null) : this.leave()),
    };
    if (!actions[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    actions[event.key]();
  }
}
