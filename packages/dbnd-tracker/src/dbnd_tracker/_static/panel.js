// The charts of a page: their common settings, which stand in the address, and the points that they show.

import { Chart } from "./chart.js";

const WAIT = 120;
const FEWEST = 200;
const MOST = 2000;

const settings = { axis: "step", log: false, smooth: 0, view: null };
const panels = [];

function readAddress() {
  const query = new URLSearchParams(location.search);
  const axis = query.get("axis");
  settings.axis = ["step", "time", "relative"].includes(axis) ? axis : "step";
  settings.log = query.get("scale") === "log";
  settings.smooth = Math.min(Math.max(Number(query.get("smooth")) || 0, 0), 0.99);
  const view = ["from", "to"].map((name) => (query.has(name) ? Number(query.get(name)) : NaN));
  settings.view = view[0] < view[1] ? view : null;
}

function writeAddress() {
  const address = new URL(location.href);
  const values = {
    axis: settings.axis === "step" ? null : settings.axis,
    scale: settings.log ? "log" : null,
    smooth: settings.smooth || null,
    from: settings.view?.[0] ?? null,
    to: settings.view?.[1] ?? null,
  };
  for (const [name, value] of Object.entries(values)) {
    if (value === null) address.searchParams.delete(name);
    else address.searchParams.set(name, value);
  }
  history.replaceState(null, "", address);
}

/** One chart, and what it draws. */
class Panel {
  constructor(figure) {
    this.figure = figure;
    this.series = JSON.parse(figure.dataset.series);
    this.note = figure.querySelector(".note");
    this.chart = new Chart(figure.querySelector(".plot"), figure.dataset.title, zoom);
    this.answers = [];
    this.isVisible = false;
    this.isStale = true;
    this.hidden = new Set();
    this.strong = null;
    if (this.series.length > 1) this.addKeys();
  }

  /** A key for each line: to point at it brings the line out, a click hides it and shows it again. */
  addKeys() {
    const list = document.createElement("ul");
    list.className = "keys";
    this.series.forEach((line, place) => {
      const swatch = document.createElement("span");
      swatch.className = `swatch s${line.colour % 10}`;
      const key = document.createElement("button");
      key.type = "button";
      key.setAttribute("aria-pressed", "true");
      key.append(swatch, line.label);
      key.addEventListener("click", () => this.toggle(place, key));
      for (const event of ["pointerenter", "focus"]) key.addEventListener(event, () => this.bringOut(place));
      for (const event of ["pointerleave", "blur"]) key.addEventListener(event, () => this.bringOut(null));
      const item = document.createElement("li");
      item.append(key);
      list.append(item);
    });
    this.figure.append(list);
  }

  toggle(place, key) {
    if (this.hidden.has(place)) this.hidden.delete(place);
    else if (this.hidden.size < this.series.length - 1) this.hidden.add(place);
    key.setAttribute("aria-pressed", String(!this.hidden.has(place)));
    this.draw();
  }

  bringOut(place) {
    this.strong = place;
    this.draw();
  }

  /** Milliseconds that the relative axis of a line starts at. */
  static start(line, answer) {
    const first = answer?.extent?.[0];
    return line.start !== null && !(first < line.start) ? line.start : first;
  }

  async load() {
    if (!this.isVisible) {
      this.isStale = true;
      return;
    }
    this.isStale = false;
    this.request?.abort();
    this.request = new AbortController();
    const { signal } = this.request;
    try {
      const answers = await Promise.all(this.series.map((line, i) => this.fetchLine(line, this.answers[i], signal)));
      if (signal.aborted) return;
      this.answers = answers;
      this.draw();
    } catch (error) {
      if (signal.aborted) return;
      this.isStale = true;
      this.note.textContent = "The points cannot be read";
      console.warn(error);
    }
  }

  async fetchLine(line, known, signal) {
    const axis = settings.axis === "step" ? "step" : "time";
    const width = this.figure.clientWidth || FEWEST;
    const query = new URLSearchParams({ key: line.key, axis, values: Math.min(Math.max(width, FEWEST), MOST) });
    if (settings.view) {
      const isRelative = settings.axis === "relative";
      const start = isRelative ? Panel.start(line, known) : 0;
      if (start !== undefined) {
        const unit = isRelative ? 1000 : 1;
        query.set("from", settings.view[0] * unit + start);
        query.set("to", settings.view[1] * unit + start);
      }
    }
    const answer = await fetch(`/app/series/${encodeURIComponent(line.task)}?${query}`, { signal });
    if (!answer.ok) throw new Error(`${answer.status} for ${line.key}`);
    return { ...(await answer.json()), asked: axis };
  }

  draw() {
    const wanted = settings.axis === "step" ? "step" : "time";
    if (!this.answers.length || this.answers.some((answer) => answer.asked !== wanted)) return;
    const isRelative = settings.axis === "relative";
    const isFaint = (i) => this.strong !== null && i !== this.strong && !this.hidden.has(this.strong);
    const all = this.series.map((line, i) => {
      const answer = this.answers[i];
      const start = Panel.start(line, answer) ?? 0;
      const moved = (x) => (isRelative ? (x - start) / 1000 : x);
      return {
        ...answer,
        label: line.label,
        colour: line.colour,
        isFaint: isFaint(i),
        x: answer.x.map(moved),
        gaps: answer.gaps.map(([x, name]) => [moved(x), name]),
        extent: answer.extent?.map(moved),
      };
    });
    const lines = all.filter((_, i) => !this.hidden.has(i));
    const ends = lines.flatMap((line) => line.extent ?? []);
    const extent = ends.length ? [Math.min(...ends), Math.max(...ends)] : null;
    const axis = settings.axis === "step" && lines.every((line) => line.axis === "index") ? "index" : settings.axis;
    this.note.textContent = this.notes(lines).join(" · ");
    this.chart.show(lines, { ...settings, axis, extent });
  }

  /** What a reader must know to read the chart rightly. */
  notes(lines) {
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
    const hidden = settings.log ? sum((line) => line.y.filter((y, i) => y !== null && isLow(line, i)).length) : 0;
    if (hidden) found.push(`${hidden} not above 0`);
    if (settings.axis === "step" && lines.some((line) => line.axis === "index")) found.push("no steps: by order");
    return found;
  }
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

function zoom(view) {
  settings.view = view;
  change();
}

function controls() {
  const bar = document.querySelector("[data-chart-settings]");
  const one = (name) => bar.querySelector(`[name=${name}]`);
  return { axis: one("axis"), log: one("log"), smooth: one("smooth"), reset: one("reset"), output: bar.querySelector("output") };
}

function showSettings() {
  const { axis, log, smooth, reset, output } = controls();
  axis.value = settings.axis;
  log.checked = settings.log;
  smooth.value = settings.smooth;
  output.textContent = settings.smooth;
  reset.hidden = settings.view === null;
}

function listen() {
  const { axis, log, smooth, reset } = controls();
  axis.addEventListener("change", () => {
    settings.axis = axis.value;
    zoom(null);
  });
  log.addEventListener("change", () => {
    settings.log = log.checked;
    change();
  });
  smooth.addEventListener("input", () => {
    settings.smooth = Number(smooth.value);
    change();
  });
  reset.addEventListener("click", () => zoom(null));
}

/** Draw the charts that come into view, and again when the page has changed. */
export function startCharts(changes) {
  readAddress();
  showSettings();
  listen();
  const known = new Map();
  const observer = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        const panel = known.get(target);
        panel.isVisible = isIntersecting;
        if (isIntersecting && panel.isStale) panel.load();
      }
    },
    { rootMargin: "200px" },
  );
  const find = () => {
    for (const figure of document.querySelectorAll("figure.chart[data-series]")) {
      if (known.has(figure)) continue;
      const panel = new Panel(figure);
      known.set(figure, panel);
      panels.push(panel);
      observer.observe(figure);
    }
  };
  find();
  changes.addEventListener("change", () => {
    find();
    for (const panel of panels) panel.load();
  });
}
