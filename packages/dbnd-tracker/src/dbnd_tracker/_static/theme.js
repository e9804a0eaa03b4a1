// Runs before anything is shown: what the user has chosen, light or dark, and that scripts work at all.
"use strict";
{
  const root = document.documentElement;
  root.classList.add("scripted");
  let chosen = null;
  try {
    chosen = localStorage.getItem("databand-theme");
  } catch {
    // Storage is switched off: the system's setting holds.
  }
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;
}
