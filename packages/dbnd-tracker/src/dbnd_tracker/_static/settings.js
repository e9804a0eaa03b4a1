// The common settings of a page's charts: they stand in its address, and in the fields above the charts.

const AXES = ["step", "time", "relative"];
const SCALES = ["", "linear", "log"];

/** `scale` is "" where each chart is to find the scale that fits it; `view` is [first, last], or null for all. */
export const settings = { axis: "step", scale: "", smooth: 0, outliers: false, view: null };

export function readAddress() {
  const query = new URLSearchParams(location.search);
  const one = (name, known) => (known.includes(query.get(name)) ? query.get(name) : known[0]);
  settings.axis = one("axis", AXES);
  settings.scale = one("scale", SCALES);
  settings.smooth = Math.min(Math.max(Number(query.get("smooth")) || 0, 0), 0.99);
  settings.outliers = query.get("outliers") === "ignored";
  const view = ["from", "to"].map((name) => (query.has(name) ? Number(query.get(name)) : NaN));
  settings.view = view[0] < view[1] ? view : null;
}

/** What the address says of the settings; null where they are as they are at first. */
function inAddress() {
  return {
    axis: settings.axis === "step" ? null : settings.axis,
    scale: settings.scale || null,
    smooth: settings.smooth || null,
    outliers: settings.outliers ? "ignored" : null,
    from: settings.view?.[0] ?? null,
    to: settings.view?.[1] ?? null,
  };
}

export function writeAddress() {
  const address = new URL(location.href);
  for (const [name, value] of Object.entries(inAddress())) {
    if (value === null) address.searchParams.delete(name);
    else address.searchParams.set(name, value);
  }
  history.replaceState(null, "", address);
}

/** Keep the settings when a table beside the charts is sorted, turned or filtered. */
export function keepSettings() {
  const set = () => Object.entries(inAddress()).filter(([, value]) => value !== null);
  document.addEventListener("formdata", ({ target, formData }) => {
    if (target.id === "filters") for (const [name, value] of set()) formData.append(name, value);
  });
  document.addEventListener("click", ({ target }) => {
    const link = target.closest?.(".runs thead a, .pages a, .chips a");
    if (!link) return;
    const address = new URL(link.href);
    for (const [name, value] of set()) address.searchParams.set(name, value);
    link.href = address;
  }, { capture: true });
}

function field(name) {
  return document.querySelector(`[data-chart-settings] [name=${name}]`);
}

export function showSettings() {
  field("axis").value = settings.axis;
  field("scale").value = settings.scale;
  field("smooth").value = settings.smooth;
  field("smooth").nextElementSibling.textContent = settings.smooth;
  field("outliers").checked = settings.outliers;
  field("reset").hidden = settings.view === null;
}

/** Only the charts whose titles hold what the filter says are shown, and only sections that have some. */
export function filterCharts() {
  const wanted = field("filter").value.trim().toLowerCase();
  for (const figure of document.querySelectorAll("figure.chart[data-series]")) {
    figure.hidden = !figure.dataset.title.toLowerCase().includes(wanted);
  }
  for (const section of document.querySelectorAll("details.chart-section")) {
    section.hidden = !section.querySelector("figure.chart:not([hidden])");
    if (wanted && !section.hidden) section.open = true;
  }
}

/** Call `changed` when the reader has changed a setting; a new axis shows all of it. */
export function listenToSettings(changed) {
  const on = (name, event, take) =>
    field(name).addEventListener(event, ({ target }) => {
      take(target);
      changed();
    });
  on("axis", "change", ({ value }) => Object.assign(settings, { axis: value, view: null }));
  on("scale", "change", ({ value }) => Object.assign(settings, { scale: value }));
  on("smooth", "input", ({ value }) => Object.assign(settings, { smooth: Number(value) }));
  on("outliers", "change", ({ checked }) => Object.assign(settings, { outliers: checked }));
  on("reset", "click", () => Object.assign(settings, { view: null }));
  field("filter").addEventListener("input", filterCharts);
}
