// The theme that is shown, and its colours, which the style sheet has in pairs.

/** Light or dark, as it was chosen or as the system has it. */
export function shownTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  return document.documentElement.dataset.theme ?? system;
}

/** What gives the colours that are shown, by their names. */
export function palette() {
  const style = getComputedStyle(document.documentElement);
  const place = shownTheme() === "dark" ? 1 : 0;
  return (name) => style.getPropertyValue(`--${name}`).match(/#\w+/g)[place];
}
