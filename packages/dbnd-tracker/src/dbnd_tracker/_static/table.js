// Rows that unfold what is nested in them, and the menu of columns. Without a script both are links and forms.

import { element } from "./elements.js";
import { suggest } from "./suggest.js";

const unfolded = new Map();
const COOKIE = "databand-columns";
const LONGEST_COOKIE = 3500;

function depthOf(row) {
  return Number(row.dataset.depth ?? 0);
}

/** The rows below `row`, as far as they are nested in it. */
function below(row) {
  const found = [];
  let next = row.nextElementSibling;
  while (next && depthOf(next) > depthOf(row)) {
    found.push(next);
    next = next.nextElementSibling;
  }
  return found;
}

async function fetched(href, depth) {
  const answer = await fetch(href);
  if (!answer.ok) throw new Error(`The tracker answers ${answer.status}.`);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const rows = [...page.querySelectorAll("table.runs > tbody > tr")];
  const more = page.querySelector("a[rel=next]");
  if (more) {
    const link = element("a", { href: more.getAttribute("href") }, "Show more");
    link.dataset.more = "";
    const cell = element("td", { colSpan: rows[0]?.cells.length ?? 1 }, link);
    rows.push(element("tr", { className: "more-nested" }, cell));
  }
  for (const row of rows) {
    row.dataset.depth = depth;
    row.classList.add(`d${Math.min(depth, 8)}`);
  }
  return rows.map((row) => document.importNode(row, true));
}

/** Unfold or fold a row; `shown` is called when its rows have changed. */
async function toggle(link, shown) {
  const row = link.closest("tr");
  if (link.getAttribute("aria-expanded") === "true") {
    link.setAttribute("aria-expanded", "false");
    for (const each of below(row)) {
      unfolded.delete(each.id);
      each.remove();
    }
    unfolded.delete(row.id);
    shown();
    return;
  }
  link.setAttribute("aria-expanded", "true");
  try {
    const href = `${link.href}&${row.closest("table").dataset.columns}`;
    const rows = await fetched(href, depthOf(row) + 1);
    if (link.getAttribute("aria-expanded") !== "true") return;
    row.after(...rows);
    unfolded.set(row.id, href);
    shown();
  } catch {
    location.assign(link.href); // the page says what is wrong
  }
}

async function more(link, shown) {
  const row = link.closest("tr");
  row.replaceWith(...(await fetched(link.href, depthOf(row))));
  shown();
}

/** Keep in a `fresh` table the rows that are unfolded here. */
export function keepUnfolded(fresh) {
  for (const id of unfolded.keys()) {
    const here = document.getElementById(id);
    const there = fresh.getElementById(id);
    if (!here || !there) continue;
    there.querySelector("a.unfold")?.setAttribute("aria-expanded", "true");
    const rows = below(here).filter((row) => depthOf(row) === depthOf(here) + 1);
    let last = there;
    for (const row of rows) {
      const copy = fresh.importNode(row, true);
      last.after(copy);
      last = copy;
    }
  }
}

/** Fetch anew what is unfolded. */
async function refresh(shown) {
  for (const [id, href] of unfolded) {
    const row = document.getElementById(id);
    if (!row || below(row).length > 200) continue;
    const fresh = new Map((await fetched(href, depthOf(row) + 1)).map((each) => [each.id, each]));
    for (const old of below(row)) {
      const next = fresh.get(old.id);
      if (!next || unfolded.has(old.id)) continue;
      next.classList.toggle("current", old.classList.contains("current"));
      if (next.innerHTML !== old.innerHTML && !old.contains(document.activeElement)) old.replaceWith(next);
    }
  }
  shown();
}

function keepColumns(boxes) {
  const texts = boxes.filter((box) => box.checked).map((box) => box.value);
  const value = encodeURIComponent(texts.join("\n"));
  if (value.length < LONGEST_COOKIE) document.cookie = `${COOKIE}=${value}; path=/; max-age=31536000; SameSite=Strict`;
}

/** Give a column that is shown its buttons, and that of a metric the choice of its value. */
function equip(choice) {
  if (choice.querySelector("[data-move]")) return;
  const box = choice.querySelector("input");
  const name = choice.textContent.trim();
  const metric = box.value.match(/^(?:(best|min|max):)?(metrics\..*)$/s);
  if (metric) {
    const select = element("select", { ariaLabel: `Value of ${name}` });
    for (const way of ["last", "best", "min", "max"]) {
      const value = way === "last" ? metric[2] : `${way}:${metric[2]}`;
      select.append(new Option(way, value, false, way === (metric[1] ?? "last")));
    }
    choice.append(select);
  }
  for (const [by, sign, side] of [["-1", "↑", "left"], ["1", "↓", "right"]]) {
    const button = element("button", { type: "button", className: "icon", ariaLabel: `Move ${name} to the ${side}` }, sign);
    button.dataset.move = by;
    choice.append(button);
  }
}

function startColumns() {
  const columns = document.getElementById("columns");
  if (!columns) return;
  columns.closest("details").addEventListener("toggle", () => {
    for (const choice of columns.querySelectorAll("#shown .choice")) equip(choice);
  });
  let isChanged = false;
  const changed = () => {
    isChanged = true;
    columns.removeAttribute("data-default"); // now the address names them
  };
  const boxes = () => [...columns.querySelectorAll("input[name=col][type=checkbox]")];
  document.getElementById("find-column").addEventListener("input", ({ target }) => {
    const wanted = target.value.toLowerCase();
    for (const choice of columns.querySelectorAll(".choice")) {
      choice.hidden = !choice.textContent.toLowerCase().includes(wanted);
    }
  });
  document.getElementById("find-column").addEventListener("keydown", (event) => {
    if (event.key === "Enter") event.preventDefault();
  });
  columns.addEventListener("change", (event) => {
    const choice = event.target.closest(".choice");
    if (event.target.matches("select")) {
      choice.querySelector("input").value = event.target.value;
      event.stopPropagation();
    }
    if (event.target.matches("select, [name=col]")) changed();
  });
  columns.addEventListener("click", ({ target }) => {
    const button = target.closest("[data-move]");
    if (!button) return;
    const choice = button.closest(".choice");
    const other = button.dataset.move === "1" ? choice.nextElementSibling : choice.previousElementSibling;
    if (!other?.matches(".choice")) return;
    if (button.dataset.move === "1") other.after(choice);
    else other.before(choice);
    changed();
    button.focus();
  });
  document.getElementById("default-columns").addEventListener("click", () => {
    document.cookie = `${COOKIE}=; path=/; max-age=0; SameSite=Strict`;
    const address = new URL(location.href);
    address.searchParams.delete("col");
    location.assign(address);
  });
  document.getElementById("filters").addEventListener("submit", () => {
    if (isChanged) keepColumns(boxes());
  });
}

/** Let rows unfold by click and by key; `shown` is called when rows have come or gone. The answer follows the live page. */
export function startTable(shown) {
  startColumns();
  const boxes = () => [...document.querySelectorAll("#columns input[name=col][type=checkbox]")];
  suggest(document.getElementById("q"), () => boxes().map((box) => box.value.replace(/^(best|min|max):/, "")));
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a.unfold, a[data-more]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    if (link.matches(".unfold")) toggle(link, shown);
    else more(link, shown);
  });
  document.addEventListener("keydown", (event) => {
    if (!["ArrowRight", "ArrowLeft"].includes(event.key) || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.target.matches("input, select, textarea, canvas")) return;
    const row = event.target.closest?.("table.runs tr") ?? document.querySelector("table.runs tr.current");
    const link = row?.querySelector("a.unfold");
    const isOpen = link?.getAttribute("aria-expanded") === "true";
    if (link && isOpen === (event.key === "ArrowLeft")) {
      event.preventDefault();
      toggle(link, shown);
    } else if (row && event.key === "ArrowLeft" && depthOf(row) > 0) {
      event.preventDefault();
      let parent = row;
      while (depthOf(parent) >= depthOf(row)) parent = parent.previousElementSibling;
      for (const each of document.querySelectorAll("table.runs tr.current")) each.classList.remove("current");
      parent.classList.add("current");
      parent.querySelector("[data-open]").focus();
    }
  });
  const rows = document.querySelectorAll("table.runs > tbody > tr");
  const only = rows.length === 1 && document.querySelector(".chips") && rows[0].querySelector("a.unfold");
  if (only) toggle(only, shown); // of an experiment that is one sweep, its trials are what one has come for
  return { refresh: () => refresh(shown) };
}
