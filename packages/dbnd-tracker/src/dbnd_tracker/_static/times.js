// Points in time as the reader's own clock shows them, and how long something has been going on.

const two = (number) => String(number).padStart(2, "0");

/** Milliseconds since the epoch in local time, to the second. */
export function localTime(milliseconds) {
  const time = new Date(milliseconds);
  const day = `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
  return `${day} ${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

/** A number of seconds as people say it: 3.2s, 4m 05s, 2h 03m. */
export function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}m ${two(Math.floor(seconds % 60))}s`;
  return `${Math.floor(minutes / 60)}h ${two(minutes % 60)}m`;
}

const UNITS = [["min", 60], ["h", 3600], ["d", 86_400], ["weeks", 604_800], ["months", 2_629_800], ["years", 31_557_600]];

/** How long ago something was: 20 s ago, 5 min ago, 3 weeks ago; of each unit at least two, but for the smallest. */
function ago(milliseconds) {
  const seconds = milliseconds / 1000;
  if (seconds < 5) return "just now";
  const [unit, size] = UNITS.findLast(([name, size]) => seconds >= size * (name === "min" ? 1 : 2)) ?? ["s", 1];
  return `${Math.floor(seconds / size)} ${unit} ago`;
}

/** Show every time below `root` in local time; the title keeps UTC, and of a time shown as long ago says all. */
export function localize(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const local = localTime(Date.parse(element.dateTime));
    if (element.classList.contains("ago")) element.title = local;
    else {
      if (!element.title) element.title = element.textContent;
      element.textContent = local;
    }
  }
}

/** Count on what goes on, and what was, below `root`. */
export function tick(root) {
  const now = Date.now();
  for (const element of root.querySelectorAll("time.ago")) {
    const text = ago(now - Date.parse(element.dateTime));
    if (element.textContent !== text) element.textContent = text;
  }
  for (const element of root.querySelectorAll(".elapsed[data-since]")) {
    const text = duration(Math.max(now - Date.parse(element.dataset.since), 0) / 1000);
    if (element.textContent !== text) element.textContent = text;
  }
}
