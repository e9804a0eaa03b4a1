// A small line in each cell of a metric: its history, fetched when the row comes into sight.

const WIDTH = 72;
const HEIGHT = 18;
const VALUES = 40;
const MOST = 50;

// Paths by row, metric and what the cell says: they are fetched again when that changes.
const known = new Map();
const waiting = new Set();

function pathOf({ x, y }) {
  const numbers = y.filter((value) => value !== null);
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
  const [first, last] = [x[0], x.at(-1)];
  const place = (value, from, to, size) => (size * (to > from ? (value - from) / (to - from) : 0.5)).toFixed(1);
  const points = x.map((at, i) => y[i] !== null && `${place(at, first, last, WIDTH)} ${place(high + low - y[i], low, high, HEIGHT)}`);
  return numbers.length > 1 ? `M${points.filter(Boolean).join("L")}` : "";
}

function draw(cell, path) {
  if (!path || cell.querySelector("svg")) return;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "sparkline");
  svg.setAttribute("viewBox", `-1 -1 ${WIDTH + 2} ${HEIGHT + 2}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(document.createElementNS(svg.namespaceURI, "path"));
  svg.firstChild.setAttribute("d", path);
  cell.prepend(svg);
}

function columns() {
  const heads = [...document.querySelectorAll("table.runs thead tr:last-child th")];
  return heads.flatMap((head, at) => (head.dataset.metric === undefined ? [] : [{ key: head.dataset.metric, at }]));
}

async function load(rows) {
  for (const { key, at } of columns()) {
    const asked = [];
    for (const row of rows) {
      const cell = row.cells[at];
      const name = [row.id, key, cell?.textContent].join("\n");
      if (known.has(name)) draw(cell, known.get(name));
      else if (cell?.textContent) asked.push({ name, cell, uid: row.id.slice("run-".length) });
    }
    if (!asked.length) continue;
    const query = new URLSearchParams([["key", key], ["values", VALUES], ...asked.map(({ uid }) => ["row", uid])]);
    const answer = await fetch(`/app/rows?${query}`);
    const found = new Map(answer.ok ? (await answer.json()).map((line) => [line.row, pathOf(line)]) : []);
    for (const { name, cell, uid } of asked) {
      known.set(name, found.get(uid) ?? "");
      draw(cell, known.get(name));
    }
  }
}

const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) waiting.add(target);
    else waiting.delete(target);
  }
  const rows = [...waiting].slice(0, MOST);
  for (const row of rows) waiting.delete(row);
  if (rows.length) load(rows);
});

/** Draw what is in sight, and again when the table has changed. */
export function startSparklines(changes) {
  const look = () => {
    observer.disconnect();
    for (const row of document.querySelectorAll("table.runs tbody tr[id]")) observer.observe(row);
  };
  changes.addEventListener("change", look);
  look();
}
