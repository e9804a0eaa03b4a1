// A line chart on a canvas: lines with gaps, bands where a value stands for many points, hover, zoom.

import { Drawing, LEFT, RIGHT, swatch, TOP } from "./drawing.js";
import { element } from "./elements.js";
import { number, rangeOf } from "./scale.js";
import { duration, localTime } from "./times.js";

const SMALLEST_DRAG = 6;
const ROWS_OF_TIP = 12;
const MOST_DOTS = 30;

/** `values` smoothed exponentially, without the pull to zero at the start; null stays null and breaks nothing. */
function smoothed(values, weight) {
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
function nearest(xs, x) {
  let low = 0;
  let high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle;
    else high = middle;
  }
  return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
}

/**
 * A chart in `host`. `zoomed` is called with [first, last], or null for all, when the user asks for it; `pointed` with
 * the x and the label of the line that the user points to, or nulls.
 *
 * A line is {label, colour, x, y, low, high, counts, gaps, exact}; x rises, y has null where there is no finite value.
 */
export class Chart {
  constructor(host, title, { zoomed, pointed }) {
    this.host = host;
    this.title = title;
    this.zoomed = zoomed;
    this.pointed = pointed;
    this.lines = [];
    this.options = { axis: "step", log: false, smooth: 0, outliers: false, range: [], view: null, extent: null };
    this.hover = null;
    this.drag = null;
    this.pointers = new Map();
    this.canvas = element("canvas", { tabIndex: 0, role: "img", ariaLabel: title }); // until it has lines
    this.tip = element("div", { className: "tip", hidden: true });
    this.rule = element("div", { className: "rule", hidden: true });
    this.said = element("span", { className: "sr", ariaLive: "polite" });
    host.append(this.canvas, this.rule, this.tip, this.said);
    this.listen();
    this.size = { width: 0, height: 0 };
    new ResizeObserver(([{ contentRect: { width, height } }]) => {
      this.size = { width: Math.round(width), height: Math.round(height) };
      this.draw();
    }).observe(host);
    document.addEventListener("themechange", () => this.draw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  show(lines, options) {
    this.options = options;
    this.lines = lines.map((line) => ({ ...line, smooth: options.smooth ? smoothed(line.y, options.smooth) : null }));
    this.hover = null;
    this.tip.hidden = true;
    this.ys = this.range(this.view());
    this.canvas.ariaLabel = this.describe();
    this.draw();
  }

  /** Draw the line with this label strongly, and the others faintly; all alike for null. */
  bringOut(label) {
    for (const line of this.lines) line.isFaint = label !== null && line.label !== label;
    this.draw();
  }

  /** What the chart shows, in words. */
  describe() {
    const parts = this.lines.map((line) => {
      const last = line.y.findLast((value) => value !== null);
      return `${line.label}: ${last === undefined ? "no numbers" : `last ${number(last)}`}`;
    });
    const scale = this.options.log ? ", logarithmic" : "";
    return `Chart of ${this.title}${scale}. ${parts.join("; ")}. Arrow keys read values.`;
  }

  /** First and last x in view. */
  view() {
    const [first, last] = this.options.view ?? this.options.extent ?? [0, 1];
    return first < last ? [first, last] : [first - 0.5, first + 0.5];
  }

  /** Smallest and largest y that are drawn: what the user has set, else what is in view. */
  range([first, last]) {
    const values = [];
    for (const line of this.lines) {
      const ends = line.exact ? [line.y] : [line.low, line.high];
      line.x.forEach((x, i) => {
        if (x >= first && x <= last && line.y[i] !== null) for (const end of ends) values.push(end[i]);
      });
    }
    const found = rangeOf(values, this.options);
    const [low, high] = found.map((end, i) => this.options.range[i] ?? end);
    return low < high && !(this.options.log && low <= 0) ? [low, high] : found;
  }

  toX(pixel) {
    const [first, last] = this.view();
    return first + ((pixel - LEFT) / (this.size.width - LEFT - RIGHT)) * (last - first);
  }

  draw() {
    const { width, height } = this.size;
    if (!width || !height || !this.lines.length) return;
    const { log, axis } = this.options;
    this.drawing = new Drawing(this.canvas, { width, height, view: this.view(), range: this.ys, log });
    this.drawing.axes(axis, this.title);
    this.drawing.clip();
    const points = this.lines.reduce((sum, line) => sum + line.x.length, 0);
    for (const line of this.lines) this.drawing.line(line, points <= MOST_DOTS);
    if (this.drag) this.drawing.drag(this.drag.from, this.drag.to);
    if (this.hover !== null) this.drawing.hover(this.hover, this.under(this.hover).filter(({ line }) => !line.isFaint));
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
      text = `mean ${text}, ${number(line.low[at])} to ${number(line.high[at])} in ${line.counts[at]} ${line.of ?? "points"}`;
    }
    return line.smooth ? `${text} (smoothed ${number(line.smooth[at])})` : text;
  }

  /** Point to the values at `x`; what is nearest to the pixel `y` comes first, or is said where there is no pointer. */
  point(x, y = null) {
    const under = this.under(x);
    if (!under.length) return;
    const far = ({ line, at }) => Math.abs(line.x[at] - x);
    this.hover = under.reduce((best, other) => (far(other) < far(best) ? other : best));
    this.hover = this.hover.line.x[this.hover.at];
    const shown = this.under(this.hover).filter(({ line, at }) => line.x[at] === this.hover || this.lines.length < 3);
    const away = ({ line, at }) => Math.abs(this.drawing.py((line.smooth ?? line.y)[at] ?? NaN) - y) || Infinity;
    const byDistance = y === null ? shown : shown.toSorted((a, b) => away(a) - away(b));
    this.fillTip(shown.length > ROWS_OF_TIP ? byDistance : shown, shown.length);
    if (y === null) this.said.textContent = this.tip.textContent;
    this.pointed(this.hover, y === null || this.lines.length < 2 ? null : byDistance[0]?.line.label ?? null);
    this.draw();
    this.placeTip();
  }

  fillTip(shown, count) {
    this.tip.replaceChildren(element("b", {}, this.xText(this.hover)));
    for (const { line, at } of shown.slice(0, ROWS_OF_TIP)) {
      const texts = [line.label, this.valueText(line, at)].map((text) => element("span", {}, text));
      this.tip.append(element("div", { className: "row" }, swatch(line.colour), ...texts));
    }
    if (count > ROWS_OF_TIP) this.tip.append(element("div", { className: "quiet" }, `and ${count - ROWS_OF_TIP} more`));
    this.tip.hidden = false;
  }

  /** The tip stands beside the pointer, and within the window. */
  placeTip() {
    const { tip } = this;
    const host = this.host.getBoundingClientRect();
    const at = this.drawing.px(this.hover);
    const left = at > host.width / 2 ? at - tip.offsetWidth - 10 : at + 10;
    const within = (place, start, size, window) => Math.max(Math.min(place, window - start - size - 4), 4 - start);
    tip.style.left = `${within(left, host.left, tip.offsetWidth, document.documentElement.clientWidth)}px`;
    tip.style.top = `${within(TOP, host.top, tip.offsetHeight, innerHeight)}px`;
  }

  /** A rule at `x`, which another chart points to; none where it is null or not in view. */
  follow(x) {
    const [first, last] = this.view();
    this.rule.hidden = x === null || !this.drawing || x < first || x > last;
    if (!this.rule.hidden) this.rule.style.left = `${this.drawing.px(x)}px`;
  }

  leave() {
    this.hover = null;
    this.tip.hidden = true;
    this.pointed(null, null);
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
      } else this.point(this.toX(at(event)), event.clientY - canvas.getBoundingClientRect().top);
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
    this.zoom(xa + (LEFT - a) * scale, xa + (this.size.width - RIGHT - a) * scale);
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
      if (near) this.point(this.hover === null ? near.line.x[near.at] : near.line.x[near.at + by] ?? x);
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
