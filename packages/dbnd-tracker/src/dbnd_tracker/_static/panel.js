// The charts of a page, and the points that they show.

import { Chart } from "./chart.js";
import { swatch } from "./drawing.js";
import { element } from "./elements.js";
import { addMenu } from "./menu.js";
import { number, spansOrders } from "./scale.js";
import { filterCharts, keepSettings, listenToSettings, ranges, readAddress, settings, showSettings, writeAddress } from "./settings.js";

const WAIT = 120;
const FEWEST = 200;
const MOST = 2000;
const KEYS = 12;
// Pixels around the window within which charts are drawn.
const MARGIN = 200;

const panels = [];
// What draws the rows of a table beside the charts; null where there is none.
let rows = null;

/** The lines of a figure, in which stands only what is not common to the lines of a task run; see `Written`. */
function seriesOf(figure, tasks) {
  const { title } = figure.dataset;
  return JSON.parse(figure.dataset.series).map((line) => {
    const [place, own, key, colour] = [line].flat();
    const [task, start, label, common] = tasks[place];
    return { task, start, label: line === place ? label : (own ?? title), key: key ?? title, colour: colour ?? common };
  });
}

/** One chart, and what it draws. */
class Panel {
  constructor(figure, series, width) {
    this.figure = figure;
    this.width = width;
    this.series = series;
    this.ofRows = !series.length;
    this.last = element("span", { className: "last" });
    this.note = element("span", { className: "note" });
    figure.querySelector("figcaption").append(this.last, this.note);
    figure.classList.add("seen");
    this.chart = new Chart(figure.querySelector(".plot"), figure.dataset.title, {
      zoomed: zoom,
      pointed: (x, label) => point(this, x, label),
    });
    this.answers = [];
    // The rows whose lines these are, of which the task runs are known.
    this.taken = null;
    this.isVisible = false;
    this.isStale = true;
    this.hidden = new Set();
    this.strong = null;
    this.range = ranges.get(figure.dataset.title) ?? [null, null];
    if (this.series.length > 1) this.addKeys();
    addMenu(this);
  }

  /** A key for each line: to point at it brings the line out, a click hides it and shows it again. */
  addKeys() {
    const list = element("ul", { className: this.series.length > KEYS ? "keys many" : "keys" });
    this.series.forEach((line, place) => {
      const key = element("button", { type: "button", ariaPressed: "true" }, swatch(line.colour), line.label);
      key.addEventListener("click", () => this.toggle(place, key));
      for (const event of ["pointerenter", "focus"]) key.addEventListener(event, () => bringOut(line.label));
      for (const event of ["pointerleave", "blur"]) key.addEventListener(event, () => bringOut(null));
      list.append(element("li", {}, key));
    });
    this.figure.append(list);
  }

  toggle(place, key) {
    if (this.hidden.has(place)) this.hidden.delete(place);
    else if (this.hidden.size < this.series.length - 1) this.hidden.add(place);
    key.ariaPressed = String(!this.hidden.has(place));
    this.draw();
  }

  bringOut(label) {
    const strong = label === null ? -1 : this.series.findIndex((line) => line.label === label);
    const wanted = strong < 0 || this.hidden.has(strong) || this.series.length < 2 ? null : strong;
    if (wanted === this.strong) return;
    this.strong = wanted;
    this.chart.bringOut(wanted === null ? null : label);
  }

  /** Milliseconds that the relative axis of a line starts at. */
  static start(line, answer) {
    const first = answer?.extent?.[0];
    return line.start !== null && !(first < line.start) ? line.start : first;
  }

  /** Milliseconds or steps of a line at 0 and 1 of the axis shown. */
  static unit(line, answer) {
    return settings.axis === "relative" ? [Panel.start(line, answer) ?? 0, 1000] : [0, 1];
  }

  /** First and last x of all lines shown, on the axis shown. */
  extent(answers) {
    const ends = this.series.flatMap((line, i) => {
      const [start, unit] = Panel.unit(line, answers[i]);
      return this.hidden.has(i) ? [] : (answers[i]?.extent ?? []).map((x) => (x - start) / unit);
    });
    return ends.length ? [Math.min(...ends), Math.max(...ends)] : null;
  }

  /** The part that the page is zoomed to; null, for all, where this chart has no points there. */
  view(answers) {
    const extent = this.extent(answers);
    const { view } = settings;
    return view && extent && (extent[1] < view[0] || extent[0] > view[1]) ? null : view;
  }

  async load() {
    if (!this.isVisible) {
      this.isStale = true;
      return;
    }
    this.isStale = false;
    const taken = this.ofRows ? rows.linesOfRows() : null;
    const isNew = taken !== this.taken;
    const key = this.figure.dataset.title;
    const series = isNew ? taken.map((line) => ({ ...line, key, start: null })) : this.series;
    const known = isNew ? [] : this.answers;
    this.request?.abort();
    this.request = new AbortController();
    const { signal } = this.request;
    try {
      const answers = await this.fetchLines(series, known, isNew ? settings.view : this.view(known), signal);
      if (signal.aborted) return;
      this.answers = answers;
      if (isNew) this.keepKnown(series);
      this.taken = taken;
      if (settings.view && !this.view(this.answers)) {
        const all = await this.fetchLines(this.series, this.answers, null, signal);
        if (signal.aborted) return;
        this.answers = all;
      }
      this.draw();
    } catch (error) {
      if (signal.aborted) return;
      this.isStale = true;
      this.note.textContent = "The points cannot be read";
      console.warn(error);
    }
  }

  /** Rows that have the metric have a line, or one for each run nested in them; what two have is drawn once. */
  keepKnown(series) {
    const lines = series.flatMap((line, i) =>
      this.answers[i].map((answer) => {
        const label = line.group === null && answer.name !== null ? answer.name : line.label;
        return { ...line, task: answer.task, label, answer };
      }),
    );
    const last = new Map(lines.map(({ task }, i) => [task, i]));
    const kept = lines.filter(({ task }, i) => last.get(task) === i);
    this.answers = kept.map(({ answer }) => answer);
    this.series = kept.map(({ answer, ...line }) => line);
  }

  /** Ask for the points of all lines: those of which the same is asked at once. */
  async fetchLines(series, known, view, signal) {
    const asked = new Map();
    const answers = [];
    series.forEach((line, i) => {
      const query = this.query(line, known[i], view).toString();
      asked.set(query, [...(asked.get(query) ?? []), i]);
    });
    await Promise.all(
      [...asked].map(async ([query, places]) => {
        // Of rows it is not known at first which task runs they draw.
        const name = series[places[0]].task ? "task" : "row";
        const asks = new URLSearchParams(places.map((i) => [name, series[i][name]]));
        const answer = await fetch(`/app/${name === "row" ? "rows" : "series"}?${query}&${asks}`, { signal });
        if (!answer.ok) throw new Error(`${answer.status} for ${query}`);
        const samples = await answer.json();
        const axis = settings.axis === "step" ? "step" : "time";
        places.forEach((i, place) => {
          const mark = (sample) => ({ ...sample, asked: axis });
          answers[i] = name === "task" ? mark(samples[place]) : samples.filter(({ row }) => row === series[i].row).map(mark);
        });
      }),
    );
    return answers;
  }

  query(line, known, view) {
    const axis = settings.axis === "step" ? "step" : "time";
    const width = Math.round(this.chart.size.width || this.width);
    const values = Math.min(Math.max(width, FEWEST), MOST);
    const query = new URLSearchParams({ key: line.key, axis, values: this.series.length > KEYS ? FEWEST : values });
    if (view && (settings.axis !== "relative" || Panel.start(line, known) !== undefined)) {
      const [start, unit] = Panel.unit(line, known);
      query.set("from", view[0] * unit + start);
      query.set("to", view[1] * unit + start);
    }
    return query;
  }

  draw() {
    const wanted = settings.axis === "step" ? "step" : "time";
    this.figure.classList.toggle("is-empty", !this.answers.length);
    if (this.ofRows && !this.answers.length) this.note.textContent = "none of these runs has it";
    if (!this.answers.length || this.answers.some((answer) => answer.asked !== wanted)) return;
    const all = this.series.map((line, i) => {
      const answer = this.answers[i];
      const [start, unit] = Panel.unit(line, answer);
      const moved = (x) => (x - start) / unit;
      const gaps = answer.gaps.map(([x, name]) => [moved(x), name]);
      return { ...answer, label: line.label, colour: line.colour, group: line.group, x: answer.x.map(moved), gaps };
    });
    const shown = all.filter((_, i) => !this.hidden.has(i));
    const lines = shown.some((line) => line.group) ? rows.grouped(shown) : shown;
    const axis = settings.axis === "step" && lines.every((line) => line.axis === "index") ? "index" : settings.axis;
    const view = this.view(this.answers);
    const log = this.isLog(lines, view);
    this.note.textContent = this.notes(lines, log).join(" · ");
    this.last.textContent = all.length === 1 && all[0].last !== null ? number(all[0].last, 4) : "";
    if (all.length === 1) this.last.title = all[0].last ?? "";
    const { range } = this;
    this.chart.show(lines, { ...settings, axis, log, range, view, extent: this.extent(this.answers) });
    if (this.strong !== null) this.chart.bringOut(this.series[this.strong]?.label ?? null);
  }

  /** Whether the scale is logarithmic: as it is set, else if all values shown at first span orders of magnitude. */
  isLog(lines, view) {
    if (!view || this.fitsLog === undefined) {
      const values = lines.flatMap((line) => (line.exact ? line.y : [...line.low, ...line.high]));
      this.fitsLog = spansOrders(values.filter((value) => value !== null));
    }
    return settings.scale ? settings.scale === "log" : this.fitsLog;
  }

  /** What a reader must know to read the chart rightly. */
  notes(lines, log) {
    const found = [];
    const sum = (count) => lines.reduce((total, line) => total + count(line), 0);
    if (!sum((line) => line.y.filter((value) => value !== null).length)) found.push("no numbers here");
    const points = sum((line) => line.points);
    found.push(`${points.toLocaleString("en")} point${points === 1 ? "" : "s"}`);
    if (lines.some((line) => !line.exact)) found.push("mean in its range");
    const gaps = new Set(lines.flatMap((line) => line.gaps.map(([, name]) => name)));
    if (gaps.size) found.push(`has ${[...gaps].join(", ")}`);
    const texts = sum((line) => line.texts);
    if (texts) found.push(`${texts} not numbers`);
    const isLow = (line, i) => (line.exact ? line.y[i] : line.low[i]) <= 0;
    const hidden = log ? sum((line) => line.y.filter((y, i) => y !== null && isLow(line, i)).length) : 0;
    if (hidden) found.push(`${hidden} not above 0`);
    if (settings.axis === "step" && lines.some((line) => line.axis === "index")) found.push("no steps: by order");
    return found;
  }
}

/** What is pointed to in one chart is marked in all. */
function point(from, x, label) {
  for (const panel of panels) if (panel !== from && panel.isVisible) panel.chart.follow(x);
  bringOut(label);
}

/** The line with this label comes out in all charts that have it among others. */
function bringOut(label) {
  for (const panel of panels) panel.bringOut(label);
  rows?.markRows(label);
}

/** Whether a box is in the window or close to it; what is folded has none. */
function isNear({ top, bottom, width }) {
  return width > 0 && top < innerHeight + MARGIN && bottom > -MARGIN;
}

let timer = null;

/** Draw what is there at once, and ask for the right points shortly. */
function change() {
  writeAddress();
  showSettings();
  for (const panel of panels) panel.draw();
  clearTimeout(timer);
  timer = setTimeout(() => panels.forEach((panel) => panel.load()), WAIT);
}

/** Ask for the points of charts that have come into view: of the first one before the others, so that it is there soon. */
async function loadSeen() {
  const [first, ...others] = panels.filter((panel) => panel.isVisible && panel.isStale);
  await first?.load();
  for (const panel of others) if (panel.isStale) panel.load();
}

function zoom(view) {
  settings.view = view;
  change();
}

/** Draw the charts that come into view, and again when the page has changed. */
export async function startCharts(changes) {
  if (document.querySelector(".beside")) rows = await import("./rows.js");
  rows?.readRows();
  rows?.listenToRows(bringOut);
  if (rows) keepSettings();
  readAddress();
  showSettings();
  listenToSettings(change);
  // Of each figure its panel; its lines until it is first seen, because the page's task runs may change until then.
  const known = new Map();
  const see = (figure, isVisible, { width }) => {
    if (isVisible && !(known.get(figure) instanceof Panel)) {
      known.set(figure, new Panel(figure, known.get(figure), width));
      panels.push(known.get(figure));
    }
    const panel = known.get(figure);
    if (panel instanceof Panel) panel.isVisible = isVisible;
  };
  const observer = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting, boundingClientRect } of entries) see(target, isIntersecting, boundingClientRect);
      loadSeen();
    },
    { rootMargin: `${MARGIN}px` },
  );
  const find = () => {
    const tasks = JSON.parse(document.querySelector("[data-charts]")?.dataset.tasks ?? "[]");
    const fresh = [...document.querySelectorAll("figure.chart[data-series]")].filter((figure) => !known.has(figure));
    // Before any is made, because each changes the page, which would be laid out anew to measure the next.
    const boxes = fresh.map((figure) => figure.getBoundingClientRect());
    fresh.forEach((figure, i) => {
      known.set(figure, seriesOf(figure, tasks));
      observer.observe(figure);
      if (isNear(boxes[i])) see(figure, true, boxes[i]); // the observer would wait for the page to be painted
    });
    loadSeen();
  };
  find();
  changes.addEventListener("change", () => {
    rows?.readRows();
    find();
    filterCharts();
    for (const panel of panels) panel.load();
  });
}
