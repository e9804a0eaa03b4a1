// What every page does; charts are loaded where there are some.

import { shownTheme } from "./colours.js";
import { element } from "./elements.js";
import { listen } from "./keys.js";
import { watch } from "./live.js";
import { keepSelection } from "./selection.js";
import { localize, tick } from "./times.js";

const main = document.getElementById("main");
const dialog = document.getElementById("keys");

function showKeys() {
  dialog.showModal();
}

function changeTheme() {
  const next = shownTheme() === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("databand-theme", next);
  } catch {
    // Storage is switched off: the choice holds for this page.
  }
  document.dispatchEvent(new Event("themechange"));
}

/** Copy what a button stands for; browsers let pages without TLS do it only by a selection. */
async function copy(button) {
  const { copy: text } = button.dataset;
  if (navigator.clipboard) await navigator.clipboard.writeText(text);
  else {
    const field = element("textarea", { value: text });
    button.after(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  document.getElementById("status").textContent = "Copied";
}

const changes = new EventTarget();
const selection = keepSelection(() => changes.dispatchEvent(new Event("change")));

document.getElementById("theme").addEventListener("click", changeTheme);
document.getElementById("help").addEventListener("click", showKeys);
document.addEventListener("change", (event) => {
  if (event.target.matches("select[name]") && event.target.form?.id === "filters") event.target.form.requestSubmit();
});
document.addEventListener("click", ({ target }) => {
  const button = target.closest("[data-copy]");
  if (button) copy(button);
});
// One menu is open at a time, and none when something else is clicked.
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});
// The address of a table says only what was asked for.
document.getElementById("filters")?.addEventListener("submit", (event) => {
  for (const input of event.target.elements) {
    if (input.name && input.name !== "col" && input.value === "") input.disabled = true;
  }
  const columns = document.querySelector("#columns[data-default]");
  const boxes = [...(columns?.querySelectorAll("input") ?? [])];
  if (boxes.every((box) => box.checked === box.defaultChecked)) for (const box of boxes) box.disabled = true;
});
addEventListener("pageshow", () => {
  for (const input of document.querySelectorAll("#filters :disabled")) input.disabled = false;
  selection.show();
});

listen({ "?": showKeys, t: changeTheme, c: selection.compare, X: selection.clear });
localize(document);
tick(document);
setInterval(() => tick(document), 1000);

let charts = null;

/** Charts may come with the first points of a run that goes on. */
function startCharts() {
  if (document.querySelector("[data-charts]")) charts ??= import("./panel.js").then((panel) => panel.startCharts(changes));
}

startCharts();
const change = document.getElementById("change");
if (change) import("./change.js").then(({ listenToChanges }) => listenToChanges(change));
const views = document.getElementById("views");
if (views?.querySelector("form")) import("./views.js").then(({ listenToViews }) => listenToViews(views));
const inMlflow = document.getElementById("in-mlflow");
if (inMlflow) {
  fetch(`/app/in-mlflow/${inMlflow.dataset.of}`).then(async (answer) => {
    const part = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("in-mlflow");
    if (part) inMlflow.replaceChildren(...part.childNodes);
  });
}
const tabs = document.getElementById("tabs");
if (tabs) import("./tabs.js").then(({ followTabs }) => followTabs(tabs));
let table = null;
if (document.getElementById("columns")) {
  import("./table.js").then(({ keepUnfolded, startTable }) => {
    const shown = () => {
      selection.show();
      localize(document);
      tick(document);
      changes.dispatchEvent(new Event("change"));
    };
    if (document.querySelector("th[data-metric]")) {
      import("./sparklines.js").then(({ startSparklines }) => startSparklines(changes));
    }
    import("./widths.js").then(({ startWidths }) => startWidths(changes));
    table = { keepUnfolded, ...startTable(shown) };
  });
}
function changed() {
  selection.show();
  table?.refresh();
  startCharts();
  changes.dispatchEvent(new Event("change"));
}

if (document.getElementById("plots")) import("./compare.js").then(({ startComparing }) => startComparing(changed));
watch(main, document.getElementById("status"), (fresh) => table?.keepUnfolded(fresh), changed);
