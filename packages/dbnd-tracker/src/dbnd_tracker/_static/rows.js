// Charts beside the table: a line for each row that is selected, or else shown, in the colour beside its name; or one
// for each group of rows that have the same value.

import { swatch } from "./drawing.js";
import { element } from "./elements.js";
import { number, spansOrders } from "./scale.js";

const MOST = 50;
const TONES = 6;

let lines = [];
const rowsOf = new Map();

function textOf(row, cell) {
  const found = row.cells[cell];
  return found ? found.title || found.textContent.trim() : "";
}

/** A part of the legend: colours, and what stands before and behind each. */
function legend(...parts) {
  return element("span", { className: "legend" }, ...parts);
}

/** Colours from low to high for the numbers that rows have in a cell, and their legend. */
function tones(rows, cell) {
  const numbers = rows.map((row) => (textOf(row, cell) === "" ? NaN : Number(textOf(row, cell))));
  const known = numbers.filter(Number.isFinite);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const scaled = spansOrders(known) ? Math.log : Number;
  const share = (value) => (scaled(value) - scaled(low)) / (scaled(high) - scaled(low) || 1);
  const tone = (value) => Math.min(Math.floor(share(value) * TONES), TONES - 1);
  const scale = Array.from({ length: TONES }, (_, i) => swatch(`q${i}`));
  const keys = known.length ? [legend(number(low, 4), ...scale, number(high, 4))] : [];
  return { colours: numbers.map((value) => (Number.isFinite(value) ? `q${tone(value)}` : "quiet")), keys };
}

/** Look at the table: which rows are drawn, in which colours, and of which groups they are. */
export function readRows() {
  const table = document.querySelector("table.runs");
  const all = [...(table?.querySelectorAll("tbody > tr[id]") ?? [])];
  const selected = all.filter((row) => row.querySelector("input[name=run]").checked);
  const wanted = selected.length ? selected : all;
  const drawn = wanted.slice(0, MOST);
  const { group, colour } = table?.dataset ?? {};
  const values = group === undefined ? [] : drawn.map((row) => textOf(row, group) || "none");
  const groups = [...new Set(values)].sort((a, b) => a - b || a.localeCompare(b));
  const toned = colour === undefined || group !== undefined ? { colours: [], keys: [] } : tones(drawn, colour);
  rowsOf.clear();
  for (const old of table?.querySelectorAll("td.name .swatch") ?? []) old.remove();
  lines = drawn.map((row, i) => {
    const link = row.querySelector("[data-open]");
    const name = group === undefined ? (link.parentElement.querySelector(".mlflow-name") ?? link).textContent : values[i];
    const line = { row: row.id.slice("run-".length), label: name, group: group === undefined ? null : values[i] };
    line.colour = toned.colours[i] ?? (group === undefined ? i : groups.indexOf(values[i]));
    link.before(swatch(line.colour));
    rowsOf.set(name, [...(rowsOf.get(name) ?? []), row]);
    return line;
  });
  const count = drawn.length < wanted.length ? `The first ${MOST} of ${wanted.length} runs` : `${drawn.length} run${drawn.length === 1 ? "" : "s"}`;
  const keys = group === undefined ? toned.keys : groups.map((value, i) => legend(swatch(i), value));
  document.getElementById("drawn").replaceChildren(...keys, `${count} ${selected.length ? "selected" : "shown"}`);
}

/** What a chart asks for: a line for each row that is drawn. */
export function linesOfRows() {
  return lines;
}

/** Mark the rows of a line, or none. */
export function markRows(label) {
  for (const [name, rows] of rowsOf) for (const row of rows) row.classList.toggle("on", name === label);
}

/** Call `point` with the label of the row that is pointed to. */
export function listenToRows(point) {
  const labelOf = ({ target }) => {
    const row = target.closest?.("table.runs tbody tr");
    return [...rowsOf].find(([, rows]) => rows.includes(row))?.[0] ?? null;
  };
  document.addEventListener("pointerover", (event) => {
    if (event.target.closest?.(".beside")) point(labelOf(event));
  });
  document.addEventListener("focusin", (event) => point(labelOf(event)));
}

/** The value of a line at a place, between its points. */
function valueAt(line, values, x, from) {
  let i = from;
  while (i + 1 < line.x.length && line.x[i + 1] <= x) i += 1;
  const [a, b] = [values[i], values[i + 1]];
  if (line.x[i] === x || a === null || a === undefined) return [line.x[i] === x ? a ?? null : null, i];
  if (x < line.x[0] || i + 1 >= line.x.length || b === null) return [null, i];
  return [a + ((b - a) * (x - line.x[i])) / (line.x[i + 1] - line.x[i]), i];
}

/** One line for each group: the mean of its lines, and the range that they span, at each place of any of them. */
export function grouped(all) {
  const groups = new Map();
  for (const line of all) groups.set(line.group, [...(groups.get(line.group) ?? []), line]);
  return [...groups.values()].map((members) => {
    const xs = [...new Set(members.flatMap((line) => line.x))].sort((a, b) => a - b);
    const places = members.map(() => [0, 0, 0]);
    const made = { ...members[0], exact: false, of: "runs", gaps: [], y: [], low: [], high: [], counts: [], x: xs };
    made.points = members.reduce((sum, line) => sum + line.points, 0);
    for (const x of xs) {
      const found = [[], [], []];
      members.forEach((line, i) => {
        [line.y, line.exact ? line.y : line.low, line.exact ? line.y : line.high].forEach((values, j) => {
          const [value, at] = valueAt(line, values, x, places[i][j]);
          places[i][j] = at;
          if (value !== null) found[j].push(value);
        });
      });
      const count = found[0].length;
      made.y.push(count ? found[0].reduce((sum, value) => sum + value / count, 0) : null);
      made.low.push(count ? Math.min(...found[1]) : null);
      made.high.push(count ? Math.max(...found[2]) : null);
      made.counts.push(count);
    }
    return made;
  });
}
