// The theme that is shown, and its colours, which the style sheet has in pairs.

/** Light or dark, as it was chosen or as the system has it. */
export function shownTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  return document.documentElement.dataset.theme ?? system;
}

// Kept, because to ask for a style makes the browser compute all that have changed.
const pairs = new Map();

function pair(name) {
  if (!pairs.has(name)) {
    const text = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);
    pairs.set(name, text.match(/#\w+/g));
  }
  return pairs.get(name);
}

/** What gives the colours that are shown, by their names. */
export function palette() {
  const place = shownTheme() === "dark" ? 1 : 0;
  return (name) => pair(name)[place];
}
