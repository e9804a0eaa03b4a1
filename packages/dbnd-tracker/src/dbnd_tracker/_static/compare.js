// The comparison: ranges dragged along axes choose runs, and what is pointed to in one plot is marked in all.

import { element } from "./elements.js";
import { takeOver } from "./live.js";

const TOP = 34;
const BOTTOM = 300;
const SMALLEST_DRAG = 4;
const NEAR = 14;
// What the form says of the address; the rest is said by the settings of charts.
const OF_FORM = ["run", "without", "y", "x", "through", "where", "show", "rows"];

function quoted(text) {
  return `'${text.replaceAll("'", "''")}'`;
}

function named(text) {
  return /^\w+$/.test(text) ? text : quoted(text);
}

/** What a range on an axis says, from the upper pixel to the lower; empty where nothing is in it. */
export function condition({ field, scale, low, high, order }, upper, lower) {
  const place = (pixel) => Math.min(Math.max((BOTTOM - pixel) / (BOTTOM - TOP), 0), 1);
  const [from, to] = [place(lower), place(upper)];
  const dot = field.indexOf(".");
  const name = `${field.slice(0, dot)}.${named(field.slice(dot + 1))}`;
  if (scale === "order") {
    const all = JSON.parse(order);
    const within = all.filter((_, i) => i / Math.max(all.length - 1, 1) >= from && i / Math.max(all.length - 1, 1) <= to);
    return within.length ? `${name} in (${within.map(quoted).join(", ")})` : "";
  }
  const [first, last] = [Number(low), Number(high)];
  const value = (share) => (scale === "log" ? first ** (1 - share) * last ** share : first * (1 - share) + last * share);
  // Rounded to what a pixel tells apart, but for the ends of the axis: there stand the lowest and the highest run.
  const text = (share) => {
    if (share === 0 || share === 1) return share ? high : low;
    const exact = value(share);
    const digits = Math.ceil(Math.log10(Math.abs(exact / (value(share + 0.001) - exact))));
    return String(Number(exact.toPrecision(Math.min(Math.max(digits || 4, 4), 17))));
  };
  return `${name} >= ${text(from)} and ${name} <= ${text(to)}`;
}

/** Let the pointer and keys choose runs; `changed` is called when the page has changed. */
export function startComparing(changed) {
  const form = document.getElementById("ask");
  const plots = document.getElementById("plots");
  let drag = null;
  let request = null;

  async function refresh(submitter) {
    const address = new URL(location.href);
    for (const name of OF_FORM) address.searchParams.delete(name);
    for (const [name, value] of new FormData(form, submitter)) if (value) address.searchParams.append(name, value);
    request?.abort();
    request = new AbortController();
    const { signal } = request;
    try {
      const answer = await fetch(address, { signal, cache: "no-store" });
      if (!answer.ok) throw new Error(`The tracker answers ${answer.status}.`);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      history.replaceState(null, "", address);
      document.title = fresh.title;
      // Charts keep their state, but not where they are to draw other runs.
      const [runs, others] = [document, fresh].map((page) => page.querySelector("[data-charts]")?.dataset.tasks);
      for (const figure of fresh.querySelectorAll("figure[data-series]")) {
        const old = document.getElementById(figure.id);
        const isSame = runs === others && old?.dataset.series === figure.dataset.series;
        if (old && !isSame) old.replaceWith(document.importNode(figure, true));
      }
      takeOver(fresh);
      if (!fresh.querySelector("#plots .problem")) form.querySelector("input.where").value = "";
      changed();
    } catch (error) {
      if (signal.aborted) return;
      document.getElementById("status").textContent = "The tracker does not answer";
      console.warn(error);
    }
  }

  /** The points of each line of the parallel coordinates; `cut` where none leads to it. */
  function lines() {
    return [...plots.querySelectorAll("#parallel a")].map((link) => {
      const found = link.firstElementChild.getAttribute("d").matchAll(/([ML])([\d.e-]+) ([\d.e-]+)/g);
      return { link, points: [...found].map(([, move, x, y]) => ({ x: Number(x), y: Number(y), cut: move === "M" })) };
    });
  }

  function place(svg, event) {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return { x: at.x, y: Math.min(Math.max(at.y, TOP), BOTTOM) };
  }

  /** Mark a run in all plots and in the table; none for null. */
  function mark(link) {
    for (const other of document.querySelectorAll("[data-run].on")) other.classList.remove("on");
    const readout = document.getElementById("readout");
    readout?.classList.toggle("shows", Boolean(link));
    if (!link) return;
    for (const each of document.querySelectorAll(`[data-run="${link.dataset.run}"]`)) each.classList.add("on");
    const whole = plots.querySelector(`#parallel [data-run="${link.dataset.run}"]`) ?? link;
    if (readout) readout.textContent = whole.getAttribute("aria-label");
  }

  function nearest({ x, y }) {
    let best = null;
    let least = NEAR;
    for (const { link, points } of drawn) {
      const end = points.findIndex((point) => point.x >= x);
      if (end < 1 || points[end].cut) continue;
      const [a, b] = [points[end - 1], points[end]];
      const away = Math.abs(a.y + ((b.y - a.y) * (x - a.x)) / (b.x - a.x) - y) + (link.classList.contains("faded") ? NEAR / 2 : 0);
      if (away < least) [best, least] = [link, away];
    }
    return best;
  }

  /** Draw the range that is being dragged, and fade the lines outside of all ranges. */
  function preview() {
    const [upper, lower] = [drag.from, drag.to].sort((a, b) => a - b);
    drag.brush.setAttribute("y", upper);
    drag.brush.setAttribute("height", lower - upper);
    const ranges = [...plots.querySelectorAll(".brush")].flatMap((brush) => {
      const [x, width, y, height] = ["x", "width", "y", "height"].map((name) => Number(brush.getAttribute(name)));
      return height ? [{ x: x + width / 2, upper: y, lower: y + height }] : [];
    });
    const isIn = (points, { x, upper, lower }) => points.some((at) => Math.abs(at.x - x) < 0.5 && at.y >= upper && at.y <= lower);
    for (const { link, points } of drawn) link.classList.toggle("faded", !ranges.every((range) => isIn(points, range)));
  }

  function choose(axis, from, to) {
    for (const old of form.querySelectorAll("[data-brush]")) if (old.dataset.brush === axis.dataset.field) old.remove();
    const value = Math.abs(to - from) < SMALLEST_DRAG ? "" : condition(axis.dataset, Math.min(from, to), Math.max(from, to));
    if (value) form.append(element("input", { type: "hidden", name: "where", value }));
    refresh();
  }

  let drawn = lines();
  mark(null);
  plots.addEventListener("pointerdown", (event) => {
    const axis = event.target.closest(".brushed");
    if (!axis || event.button) return;
    event.preventDefault();
    drawn = lines();
    const { y } = place(axis.ownerSVGElement, event);
    drag = { axis, from: y, to: y, brush: axis.querySelector(".brush") };
    event.target.setPointerCapture(event.pointerId);
  });
  plots.addEventListener("pointermove", (event) => {
    const svg = event.target.closest("svg");
    if (drag) {
      drag.to = place(drag.axis.ownerSVGElement, event).y;
      preview();
    } else if (svg) mark(event.target.closest("a") ?? (svg.closest("#parallel") ? nearest(place(svg, event)) : null));
  });
  const release = (event) => {
    if (!drag) return;
    const { axis, from, to } = drag;
    drag = null;
    if (event.type === "pointerup") choose(axis, from, to);
    else refresh();
  };
  plots.addEventListener("pointerup", release);
  plots.addEventListener("pointercancel", release);
  plots.addEventListener("pointerenter", () => (drawn = lines()));
  plots.addEventListener("pointerleave", () => mark(null));
  plots.addEventListener("focusin", ({ target }) => mark(target.closest("a[data-run]")));
  plots.addEventListener("focusout", () => mark(null));
  // The best run is drawn last, so that it lies above the others.
  plots.addEventListener("keydown", (event) => {
    const link = event.target.closest("a[data-run]");
    const next = { ArrowUp: "nextElementSibling", ArrowLeft: "nextElementSibling", ArrowDown: "previousElementSibling", ArrowRight: "previousElementSibling" };
    const other = link?.[next[event.key]];
    if (!other?.matches("a[data-run]")) return;
    event.preventDefault();
    other.focus();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    refresh(event.submitter);
  });
  form.addEventListener("change", ({ target }) => {
    if (target.name !== "where" || target.type === "checkbox") refresh();
  });
}
