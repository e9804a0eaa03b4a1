// A page that may change fetches itself again and takes over what has changed.

import { localize, tick } from "./times.js";

const SLOWEST = 60_000;

/** Make `old` what `fresh` is, keeping every node that stays: focus, selection and open menus live in them. */
function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || old.id !== fresh.id) {
    old.replaceWith(document.importNode(fresh, true));
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  if (old.hasAttribute("data-keep")) return;
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open" && name !== "aria-selected" && name !== "aria-current") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  // Rows are known by their ids, so that one that comes first does not change all others.
  const kept = new Map();
  for (const child of old.children) if (child.id) kept.set(child.id, child);
  let place = old.firstChild;
  for (const child of fresh.childNodes) {
    const same = child.id ? kept.get(child.id) : undefined;
    const target = same ?? (place && !place.id && !child.id ? place : null);
    if (!target) {
      old.insertBefore(document.importNode(child, true), place);
      continue;
    }
    if (target !== place) old.insertBefore(target, place);
    place = target.nextSibling;
    morph(target, child);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

/** Show what `fresh`, this page as it is now, has in its regions; `before` gets it. */
export function takeOver(fresh, before = () => {}) {
  localize(fresh);
  tick(fresh);
  before(fresh);
  for (const region of fresh.querySelectorAll("[data-region]")) {
    const old = document.getElementById(region.id);
    if (old) morph(old, region);
  }
  const main = document.getElementById("main");
  const live = fresh.getElementById("main")?.dataset.live;
  if (live) main.dataset.live = live;
  else delete main.dataset.live;
}

/** Fetch this page again and again while it says that it is live; `before` gets it, and `changed` is called then. */
export function watch(main, status, before, changed) {
  let tag = null;
  let failures = 0;
  const rest = () => Math.min(Number(main.dataset.live) * 2 ** failures, SLOWEST);

  async function look() {
    const answer = await fetch(location.href, { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
    if (answer.status === 304) return;
    if (!answer.ok) throw new Error(`The tracker answers ${answer.status}.`);
    tag = answer.headers.get("ETag");
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    takeOver(fresh, before);
    changed();
  }

  async function turn() {
    if (document.visibilityState === "visible") {
      try {
        await look();
        failures = 0;
        status.textContent = "";
      } catch {
        failures += 1;
        status.textContent = "The tracker does not answer";
      }
    }
    if (main.dataset.live) setTimeout(turn, rest());
  }

  if (main.dataset.live) setTimeout(turn, rest());
}
