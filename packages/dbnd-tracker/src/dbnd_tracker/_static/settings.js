// The common settings of a page's charts: they stand in its address, and in the fields above the charts.

const AXES = ["step", "time", "relative"];
const SCALES = ["", "linear", "log"];

/** `scale` is "" where each chart is to find the scale that fits it; `view` is [first, last], or null for all. */
export const settings = { axis: "step", scale: "", smooth: 0, outliers: false, view: null };

/** By the title of a chart, its own [lowest, highest], null for what it is to find. */
export const ranges = new Map();

export function readAddress() {
  const query = new URLSearchParams(location.search);
  const one = (name, known) => (known.includes(query.get(name)) ? query.get(name) : known[0]);
  settings.axis = one("axis", AXES);
  settings.scale = one("scale", SCALES);
  settings.smooth = Math.min(Math.max(Number(query.get("smooth")) || 0, 0), 0.99);
  settings.outliers = query.get("outliers") === "ignored";
  const view = ["from", "to"].map((name) => (query.has(name) ? Number(query.get(name)) : NaN));
  settings.view = view[0] < view[1] ? view : null;
  for (const text of query.getAll("range")) {
    const [, low, high, title] = text.match(/^(.*?)\.\.(\S*) (.*)$/s) ?? [];
    if (title) ranges.set(title, [low, high].map((end) => (end && Number.isFinite(Number(end)) ? Number(end) : null)));
  }
}

/** What the address says of the settings: names and values; nothing of those that are as they are at first. */
function inAddress() {
  const values = {
    axis: settings.axis === "step" ? null : settings.axis,
    scale: settings.scale || null,
    smooth: settings.smooth || null,
    outliers: settings.outliers ? "ignored" : null,
    from: settings.view?.[0] ?? null,
    to: settings.view?.[1] ?? null,
  };
  const own = [...ranges].filter(([, ends]) => ends.some((end) => end !== null));
  return [
    ...Object.entries(values).filter(([, value]) => value !== null),
    ...own.map(([title, [low, high]]) => ["range", `${low ?? ""}..${high ?? ""} ${title}`]),
  ];
}

/** An address that says of the settings what holds now. */
function withSettings(href) {
  const address = new URL(href);
  for (const name of ["axis", "scale", "smooth", "outliers", "from", "to", "range"]) address.searchParams.delete(name);
  for (const [name, value] of inAddress()) address.searchParams.append(name, value);
  return address;
}

export function writeAddress() {
  history.replaceState(null, "", withSettings(location.href));
}

/** Keep the settings when a table beside the charts is sorted, turned or filtered. */
export function keepSettings() {
  document.addEventListener("formdata", ({ target, formData }) => {
    if (target.id === "filters") for (const [name, value] of inAddress()) formData.append(name, value);
  });
  document.addEventListener("click", ({ target }) => {
    const link = target.closest?.(".runs thead a, .pages a, .chips a");
    if (link) link.href = withSettings(link.href);
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
