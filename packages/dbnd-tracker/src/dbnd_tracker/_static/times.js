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

/** Show every time below `root` in local time; the title keeps UTC. */
export function localize(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    if (!element.title) element.title = element.textContent;
    element.textContent = localTime(Date.parse(element.dateTime));
  }
}

/** Count on what goes on below `root`. */
export function tick(root) {
  const now = Date.now();
  for (const element of root.querySelectorAll(".elapsed[data-since]")) {
    const text = duration(Math.max(now - Date.parse(element.dataset.since), 0) / 1000);
    if (element.textContent !== text) element.textContent = text;
  }
}
