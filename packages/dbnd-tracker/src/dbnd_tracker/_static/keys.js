// The keyboard: a row that is current, and what keys do with it.

const CURRENT = "current";

function rows() {
  return [...document.querySelectorAll("table[data-rows] > tbody > tr:not(.group)")];
}

function move(by) {
  const all = rows();
  if (!all.length) return;
  const at = all.findIndex((row) => row.classList.contains(CURRENT));
  const next = all[Math.min(Math.max(at + by, 0), all.length - 1)];
  all[at]?.classList.remove(CURRENT);
  next.classList.add(CURRENT);
  next.querySelector("[data-open]")?.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

function current() {
  return rows().find((row) => row.classList.contains(CURRENT));
}

function leave(target) {
  for (const menu of document.querySelectorAll("details.menu[open]")) menu.open = false;
  current()?.classList.remove(CURRENT);
  target.blur?.();
}

function isTyping(target) {
  return target.matches?.("input:not([type=checkbox]), select, textarea, [contenteditable]") ?? false;
}

/** Listen to the keyboard; `actions` maps further keys to what they do. */
export function listen(actions) {
  document.addEventListener("keydown", (event) => {
    const { target, key } = event;
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return;
    if (key === "Escape") {
      leave(target);
      return;
    }
    if (isTyping(target)) return;
    const own = {
      "/": () => document.querySelector("[data-key='/']")?.focus(),
      j: () => move(1),
      k: () => move(-1),
      x: () => current()?.querySelector("input[type=checkbox]")?.click(),
      u: () => [...document.querySelectorAll("header nav a")].at(-1)?.click(),
    };
    const action = own[key] ?? actions[key];
    if (action) {
      event.preventDefault();
      action();
    }
  });
}
