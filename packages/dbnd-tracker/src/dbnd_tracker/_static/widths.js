// Columns of the table as wide as somebody has made them: kept in the browser, and in the address to be shared.

import { element } from "./elements.js";

const KEY = "databand-widths";
const NARROWEST = 48;
const WIDEST = 900;
const STEP = 16;

const sheet = new CSSStyleSheet();
const asked = new URLSearchParams(location.search).getAll("width").map((text) => text.match(/^(\d+) (.*)$/s));
const widths = new Map([...kept(), ...asked.filter(Boolean).map(([, width, name]) => [name, Number(width)])]);

function kept() {
  try {
    return Object.entries(JSON.parse(localStorage.getItem(KEY) ?? "{}"));
  } catch {
    return []; // Storage is switched off, or holds something else.
  }
}

function heads() {
  return [...document.querySelectorAll("table.runs thead tr:last-child th[scope=col]")].filter((head) => head.querySelector("a"));
}

/** What a column shows, as it is sorted by. */
function nameOf(head) {
  return new URL(head.querySelector("a").href).searchParams.get("sort").replace(/^-/, "");
}

function show() {
  const rules = heads().flatMap((head) => {
    const width = widths.get(nameOf(head));
    const cells = ["thead tr:last-child", "tbody tr"].map((row) => `.runs ${row} > :nth-child(${head.cellIndex + 1})`);
    return width ? [`${cells.join(", ")} { width: ${width}px; min-width: ${width}px; max-width: ${width}px; }`] : [];
  });
  sheet.replaceSync(rules.join("\n"));
}

/** Make a column so wide, or as wide as it needs to be for null. */
function change(head, width) {
  if (width === null) widths.delete(nameOf(head));
  else widths.set(nameOf(head), Math.round(Math.min(Math.max(width, NARROWEST), WIDEST)));
  show();
  head.querySelector(".resize").ariaValueNow = head.offsetWidth;
}

function keep() {
  try {
    localStorage.setItem(KEY, JSON.stringify(Object.fromEntries(widths)));
  } catch {
    // See above.
  }
  const address = new URL(location.href);
  address.searchParams.delete("width");
  for (const head of heads()) {
    const width = widths.get(nameOf(head));
    if (width) address.searchParams.append("width", `${width} ${nameOf(head)}`);
  }
  history.replaceState(null, "", address);
}

function equip(head) {
  if (head.querySelector(".resize")) return;
  const handle = element("span", { className: "resize", tabIndex: 0, role: "separator", ariaOrientation: "vertical" });
  handle.ariaLabel = `Width of ${head.querySelector("a").textContent.trim()}`;
  Object.assign(handle, { ariaValueMin: NARROWEST, ariaValueMax: WIDEST, ariaValueNow: head.offsetWidth });
  handle.addEventListener("pointerdown", (down) => {
    down.preventDefault();
    const before = head.offsetWidth;
    handle.setPointerCapture(down.pointerId);
    const move = (event) => change(head, before + event.clientX - down.clientX);
    handle.addEventListener("pointermove", move);
    handle.addEventListener("lostpointercapture", () => {
      handle.removeEventListener("pointermove", move);
      keep();
    }, { once: true });
  });
  handle.addEventListener("dblclick", () => {
    change(head, null);
    keep();
  });
  handle.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -STEP, ArrowRight: STEP }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    change(head, head.offsetWidth + by);
    keep();
  });
  head.append(handle);
}

/** Let columns be made wider and narrower, and again when the table has changed. */
export function startWidths(changes) {
  const look = () => {
    heads().forEach(equip);
    show();
  };
  document.adoptedStyleSheets.push(sheet);
  changes.addEventListener("change", look);
  look();
}
