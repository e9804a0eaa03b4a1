// The runs selected to be compared: they stay selected when the table is turned, sorted or filtered, as long as the
// browser's tab is open.

import { element } from "./elements.js";

const KEY = "databand-selected";

const form = document.getElementById("compare");
const button = document.getElementById("compare-button");
const elsewhere = document.getElementById("elsewhere");
const clear = document.getElementById("clear-selection");

let kept = null;

function boxes() {
  return [...document.querySelectorAll("input[name=run][form=compare]")];
}

/** Uids of what is selected, in the order in which it was. */
function read() {
  try {
    return new Set(JSON.parse(sessionStorage.getItem(KEY) ?? "[]"));
  } catch {
    // Storage is switched off, or holds something else: the selection holds for this page.
    return kept ?? new Set();
  }
}

function write(uids) {
  kept = uids;
  try {
    sessionStorage.setItem(KEY, JSON.stringify([...uids]));
  } catch {
    // See above.
  }
}

function show() {
  const uids = read();
  const all = boxes();
  for (const box of all) box.checked = uids.has(box.value);
  const here = new Set(all.map((box) => box.value));
  const others = [...uids].filter((uid) => !here.has(uid));
  form.replaceChildren(...others.map((value) => element("input", { type: "hidden", name: "run", value })));
  button.disabled = uids.size < 2;
  button.textContent = uids.size ? `Compare ${uids.size} selected` : "Compare selected";
  elsewhere.textContent = others.length ? `${others.length} not on this page` : "";
  clear.hidden = uids.size === 0;
  const whole = document.getElementById("select-all");
  if (whole) {
    whole.checked = others.length < uids.size && all.every((box) => box.checked);
    whole.indeterminate = !whole.checked && all.some((box) => box.checked);
  }
}

let told = () => {};

function select(changed) {
  const uids = read();
  for (const box of changed) {
    if (box.checked) uids.add(box.value);
    else uids.delete(box.value);
  }
  write(uids);
  show();
  told();
}

function clearAll() {
  write(new Set());
  show();
  told();
}

/** Keep the selection of the table in this page; `changed` is called when it changes. The answer does what keys ask. */
export function keepSelection(changed) {
  told = changed;
  if (!form) return { show() {}, compare() {}, clear() {} };
  document.addEventListener("change", ({ target }) => {
    if (target.form === form) select([target]);
    if (target.id === "select-all") select(boxes().map((box) => Object.assign(box, { checked: target.checked })));
  });
  clear.addEventListener("click", () => {
    clearAll();
    document.getElementById("main").focus();
  });
  show();
  return { show, compare: () => button.click(), clear: clearAll };
}
