// What stands on a chart's canvas: axes, lines with gaps, bands, and marks at what the user points to.

import { palette } from "./colours.js";
import { element } from "./elements.js";
import { linearTicks, logTicks, relativeTicks, stepTicks, timeTicks } from "./scale.js";

export const LEFT = 58;
export const RIGHT = 12;
export const TOP = 24;
const COLOURS = 10;
const BOTTOM = 38;
const TITLES = { step: "step", index: "point", time: "time", relative: "time since the start" };
const TICKS = { step: stepTicks, index: stepTicks, time: timeTicks, relative: relativeTicks };

/** The name of a line's colour: a line has the number of one, or its name. */
export function hue(colour) {
  return typeof colour === "number" ? `c${colour % COLOURS}` : colour;
}

/** A small piece of a line's colour. */
export function swatch(colour) {
  return element("span", { className: `swatch ${typeof colour === "number" ? `s${colour % COLOURS}` : colour}` });
}

/** One drawing on `canvas`, which it clears; `view` is the first and last x, `range` the lowest and highest y. */
export class Drawing {
  constructor(canvas, { width, height, view, range, log }) {
    Object.assign(this, { width, height, view, range, log });
    const ratio = devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    this.pen = canvas.getContext("2d");
    this.pen.scale(ratio, ratio);
    this.colour = palette();
    this.scaled = log ? Math.log10 : (value) => value;
    [this.bottom, this.top] = range.map(this.scaled);
  }

  px(x) {
    return LEFT + ((x - this.view[0]) / (this.view[1] - this.view[0])) * (this.width - LEFT - RIGHT);
  }

  py(y) {
    // Halves, because a range may be wider than the largest double.
    const share = (this.scaled(y) / 2 - this.bottom / 2) / (this.top / 2 - this.bottom / 2);
    return this.height - BOTTOM - share * (this.height - TOP - BOTTOM);
  }

  axes(axis, title) {
    const { pen, width, height } = this;
    pen.font = "11px system-ui, sans-serif";
    pen.lineWidth = 1;
    const ys = (this.log ? logTicks : linearTicks)(...this.range);
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const [at, label] of ys) {
      const y = Math.round(this.py(at)) + 0.5;
      this.straight(LEFT, y, width - RIGHT, y, "line");
      pen.fillStyle = this.colour("quiet");
      pen.fillText(label, LEFT - 7, y, LEFT - 8);
    }
    pen.textBaseline = "top";
    for (const [at, label] of TICKS[axis](...this.view, width < 360 ? 3 : 5)) {
      const x = this.px(at);
      if (x < LEFT - 1 || x > width - RIGHT + 1) continue;
      const half = pen.measureText(label).width / 2;
      pen.textAlign = x + half > width ? "right" : "center";
      pen.fillText(label, pen.textAlign === "right" ? width : x, height - BOTTOM + 6);
    }
    pen.textAlign = "right";
    pen.fillText(TITLES[axis], width - RIGHT, height - 13);
    pen.textAlign = "left";
    pen.fillText(this.log ? `${title}, logarithmic` : title, 2, 2, width - RIGHT);
    this.straight(LEFT, height - BOTTOM + 0.5, width - RIGHT, height - BOTTOM + 0.5, "strong-line");
  }

  /** Keep what is drawn from here on between the axes. */
  clip() {
    this.pen.beginPath();
    this.pen.rect(LEFT, TOP - 6, this.width - LEFT - RIGHT, this.height - TOP - BOTTOM + 12);
    this.pen.clip();
  }

  /** A line; its points have dots where there are `few` in the chart. */
  line(line, few) {
    const { pen } = this;
    const colour = this.colour(hue(line.colour));
    pen.strokeStyle = colour;
    pen.fillStyle = colour;
    pen.lineJoin = "round";
    const parts = this.parts(line.y);
    const strength = line.isFaint ? 0.15 : 1;
    if (!line.exact) {
      pen.globalAlpha = strength * (line.smooth ? 0.13 : 0.24);
      for (const [start, end] of parts) this.band(line, start, end);
    }
    pen.globalAlpha = strength * (line.smooth ? 0.28 : 1);
    pen.lineWidth = line.smooth ? 1 : 1.6;
    for (const [start, end] of parts) this.stroke(line.x, line.y, start, end);
    pen.globalAlpha = strength;
    if (line.smooth) {
      pen.lineWidth = 2;
      for (const [start, end] of this.parts(line.smooth)) this.stroke(line.x, line.smooth, start, end);
    }
    for (const [start, end] of parts) {
      if (!few && end - start > 1) continue;
      for (let i = start; i < end; i += 1) this.dot(line.x[i], line.y[i], end - start > 1 ? 2.2 : 3);
    }
    for (const [at, name] of line.gaps) this.gap(at, name);
    pen.globalAlpha = 1;
  }

  /** Parts of a line without a gap, as [start, end) of its indices. */
  parts(values) {
    const found = [];
    let start = -1;
    for (let i = 0; i <= values.length; i += 1) {
      if (i < values.length && this.shows(values[i])) {
        if (start < 0) start = i;
      } else if (start >= 0) {
        found.push([start, i]);
        start = -1;
      }
    }
    return found;
  }

  shows(value) {
    return value !== null && !(this.log && value <= 0);
  }

  band(line, start, end) {
    const { pen } = this;
    const low = (i) => (this.shows(line.low[i]) ? line.low[i] : line.y[i]);
    pen.beginPath();
    for (let i = start; i < end; i += 1) pen.lineTo(this.px(line.x[i]), this.py(line.high[i]));
    for (let i = end - 1; i >= start; i -= 1) pen.lineTo(this.px(line.x[i]), this.py(low(i)));
    pen.closePath();
    pen.fill();
    // A single point far out makes a band of no width: its edge keeps it visible.
    pen.lineWidth = 1;
    pen.stroke();
  }

  stroke(xs, ys, start, end) {
    this.pen.beginPath();
    for (let i = start; i < end; i += 1) this.pen.lineTo(this.px(xs[i]), this.py(ys[i]));
    this.pen.stroke();
  }

  dot(x, y, radius) {
    this.pen.beginPath();
    this.pen.arc(this.px(x), this.py(y), radius, 0, 2 * Math.PI);
    this.pen.fill();
  }

  /** NaN is a cross at the foot of the chart, an infinity an arrow at its head or foot. */
  gap(at, name) {
    const { pen } = this;
    const x = this.px(at);
    const y = name === "Infinity" ? TOP : this.height - BOTTOM - 4;
    pen.lineWidth = 1.5;
    pen.beginPath();
    if (name === "NaN") {
      pen.moveTo(x - 3, y - 3);
      pen.lineTo(x + 3, y + 3);
      pen.moveTo(x + 3, y - 3);
      pen.lineTo(x - 3, y + 3);
      pen.stroke();
    } else {
      const tip = name === "Infinity" ? -4 : 4;
      pen.moveTo(x, y + tip);
      pen.lineTo(x - 4, y - tip);
      pen.lineTo(x + 4, y - tip);
      pen.fill();
    }
  }

  /** The part that the user drags over, in pixels. */
  drag(from, to) {
    this.pen.fillStyle = this.colour("accent");
    this.pen.globalAlpha = 0.18;
    this.pen.fillRect(from, TOP, to - from, this.height - TOP - BOTTOM);
    this.pen.globalAlpha = 1;
  }

  /** A rule at `x`, and a dot on each line at its value there. */
  hover(x, under) {
    this.pen.lineWidth = 1;
    this.straight(this.px(x), TOP, this.px(x), this.height - BOTTOM, "quiet");
    for (const { line, at } of under) {
      const value = (line.smooth ?? line.y)[at];
      if (!this.shows(value)) continue;
      this.pen.fillStyle = this.colour(hue(line.colour));
      this.dot(line.x[at], value, 4);
    }
  }

  straight(x1, y1, x2, y2, colour) {
    this.pen.strokeStyle = this.colour(colour);
    this.pen.beginPath();
    this.pen.moveTo(x1, y1);
    this.pen.lineTo(x2, y2);
    this.pen.stroke();
  }
}
