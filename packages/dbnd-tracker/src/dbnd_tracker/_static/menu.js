// What one does with a single chart: its own range, full screen, and its picture and points as files.

import { palette } from "./colours.js";
import { hue } from "./drawing.js";
import { element } from "./elements.js";
import { ranges, writeAddress } from "./settings.js";

const HEAD = 30;
const KEY = 18;
const MOST_KEYS = 20;

/** A menu in the caption of a panel's figure. */
export function addMenu(panel) {
  const { figure } = panel;
  const { title } = figure.dataset;
  const box = element("div", { className: "panel" });
  const menu = element("details", { className: "menu" });
  const close = (action) => () => {
    menu.open = false;
    action();
  };
  const button = (text, action) => element("button", { type: "button", textContent: text, onclick: close(action) });
  const end = (place, name) => {
    const field = element("input", { type: "number", step: "any", placeholder: "automatic" });
    field.value = panel.range[place] ?? "";
    field.addEventListener("input", () => {
      panel.range[place] = field.value === "" ? null : Number(field.value);
      ranges.set(title, panel.range);
      writeAddress();
      panel.draw();
    });
    return element("label", {}, name, field);
  };
  const ariaLabel = `What to do with the chart of ${title}`;
  const summary = element("summary", { textContent: "⋯", title: "Range, full screen, files", ariaLabel });
  box.append(end(0, "Lowest value shown"), end(1, "Highest value shown"));
  if (document.fullscreenEnabled) box.append(button("Full screen", () => figure.requestFullscreen()));
  box.append(button("Picture (PNG)", () => savePicture(panel, title)));
  box.append(button("All points (CSV)", () => save(`/app/points.csv?${pointsQuery(panel.series)}`, "points.csv")));
  menu.append(summary, box);
  figure.querySelector("figcaption").append(menu);
}

function pointsQuery(series) {
  return new URLSearchParams(series.flatMap((line) => [["task", line.task], ["key", line.key]]));
}

function save(address, name) {
  element("a", { href: address, download: name }).click();
}

/** The chart as it is seen, with its title above and the names of its lines below. */
function savePicture({ chart, series }, title) {
  const { canvas } = chart;
  const colour = palette();
  const ratio = devicePixelRatio || 1;
  const keys = series.length > 1 ? series.slice(0, MOST_KEYS) : [];
  const picture = element("canvas", { width: canvas.width, height: canvas.height + (HEAD + keys.length * KEY) * ratio });
  const pen = picture.getContext("2d");
  pen.fillStyle = colour("page");
  pen.fillRect(0, 0, picture.width, picture.height);
  pen.drawImage(canvas, 0, HEAD * ratio);
  pen.scale(ratio, ratio);
  pen.fillStyle = colour("text");
  pen.font = "600 14px system-ui, sans-serif";
  pen.fillText(title, 12, 20);
  pen.font = "12px system-ui, sans-serif";
  keys.forEach((line, i) => {
    const y = HEAD + canvas.height / ratio + i * KEY + 8;
    pen.fillStyle = colour(hue(line.colour));
    pen.fillRect(12, y - 5, 12, 3);
    pen.fillStyle = colour("text");
    pen.fillText(line.label, 32, y);
  });
  picture.toBlob((blob) => {
    const address = URL.createObjectURL(blob);
    save(address, `${title.replace(/[^\w.-]+/g, "_")}.png`);
    URL.revokeObjectURL(address);
  });
}
