// The field that searches and filters suggests names and values for what is being written in it.

import { element } from "./elements.js";

const ATTRIBUTES = ["name", "job", "project", "experiment", "user", "state", "start_time", "mlflow_run_id"];
const VALUE = /(?:^|[\s(])([a-z_]+(?:\.(?:`[^`]*`|[^\s<>=!~`]+))?)\s*(?:!?=|~|\bi?like\b)\s*(["']?)([^"']*)$/i;
const MOST = 12;
const WAIT = 120;

/** What stands before the caret asks for: values of a `name`, or names; `start` is where the text that is replaced begins. */
function wanted(text) {
  const value = text.match(VALUE);
  if (value && (value[2] || !/\s/.test(value[3]))) {
    return { name: value[1].replaceAll("`", ""), part: value[3], start: text.length - value[3].length - value[2].length };
  }
  const word = text.match(/[^\s(]*$/)[0];
  return { name: null, part: word, start: text.length - word.length };
}

function quoted(text) {
  return /^[^\s"'()]+$/.test(text) ? text : `"${text.replaceAll('"', '""')}"`;
}

function written(name) {
  const [kind, ...rest] = name.split(".");
  return /[\s<>=!~"'`]/.test(name) ? `${kind}.\`${rest.join(".")}\`` : name;
}

/** Suggest for `field`; `names` gives what rows have logged, such as metrics.loss. */
export function suggest(field, names) {
  const shown = { id: "suggestions", className: "suggestions", hidden: true, role: "listbox", ariaLabel: "Suggestions" };
  const list = element("ul", shown);
  field.after(list);
  Object.assign(field, { role: "combobox", ariaExpanded: "false", ariaAutoComplete: "list" });
  field.setAttribute("aria-controls", list.id);
  let asked = 0;
  let timer = 0;

  function options() {
    return [...list.children];
  }

  function close() {
    asked += 1;
    list.hidden = true;
    field.ariaExpanded = "false";
    field.removeAttribute("aria-activedescendant");
  }

  function choose(option) {
    const caret = field.selectionStart;
    const before = field.value.slice(0, Number(option.dataset.start));
    const text = `${before}${option.dataset.text} `;
    field.value = text + field.value.slice(caret).trimStart();
    field.setSelectionRange(text.length, text.length);
    field.focus();
    close();
  }

  function show(found) {
    list.replaceChildren(
      ...found.map(({ text, note, start, insert }, place) => {
        const option = element("li", { id: `suggestion-${place}`, role: "option", ariaSelected: "false" }, text);
        Object.assign(option.dataset, { start, text: insert });
        if (note) option.append(element("small", {}, note));
        return option;
      }),
    );
    list.hidden = !found.length;
    field.ariaExpanded = String(!list.hidden);
    field.removeAttribute("aria-activedescendant");
  }

  async function look() {
    const { name, part, start } = wanted(field.value.slice(0, field.selectionStart));
    const mine = (asked += 1);
    if (name) {
      const answer = await fetch(`/app/values?${new URLSearchParams({ name, start: part })}`);
      const values = answer.ok ? await answer.json() : [];
      if (mine !== asked) return;
      const others = values.filter((value) => value !== part).slice(0, MOST);
      show(others.map((value) => ({ text: value, start, insert: quoted(value) })));
      return;
    }
    const low = part.toLowerCase();
    const known = low ? [...names(), ...ATTRIBUTES].filter((each) => each.toLowerCase().includes(low) && each !== part) : [];
    show(known.slice(0, MOST).map((each) => ({ text: each, note: each.includes(".") ? "" : "of the run", start, insert: written(each) })));
  }

  function move(by) {
    const all = options();
    const at = all.findIndex((option) => option.ariaSelected === "true");
    if (at >= 0) all[at].ariaSelected = "false";
    const next = all[(at + by + (at < 0 && by < 0 ? 1 : 0) + all.length) % all.length];
    next.ariaSelected = "true";
    next.scrollIntoView({ block: "nearest" });
    field.setAttribute("aria-activedescendant", next.id);
  }

  field.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(look, WAIT);
  });
  field.addEventListener("keydown", (event) => {
    if (list.hidden) return;
    const chosen = list.querySelector("[aria-selected=true]");
    if (event.key === "ArrowDown" || event.key === "ArrowUp") move(event.key === "ArrowDown" ? 1 : -1);
    else if (event.key === "Enter" && chosen) choose(chosen);
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
  });
  list.addEventListener("mousedown", (event) => event.preventDefault()); // the field keeps the focus
  list.addEventListener("click", ({ target }) => {
    const option = target.closest("li");
    if (option) choose(option);
  });
  field.addEventListener("blur", close);
  // Somebody has begun to write before this script was there.
  if (document.activeElement === field && field.value !== field.defaultValue) look();
}
