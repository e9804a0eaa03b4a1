// Axes: where their ticks stand, and numbers as people read them.

import { duration, localTime } from "./times.js";

/** A number to `digits` significant digits, without a tail of noughts. */
export function number(value, digits = 6) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) {
    return value.toExponential(Math.min(digits, 4) - 1).replace(/\.?0+e/, "e").replace("e+", "e");
  }
  return String(Number(value.toPrecision(digits)));
}

/** The distance between ticks: 1, 2 or 5 times a power of ten. */
function niceStep(span, count) {
  const rough = span / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const part = rough / power;
  return power * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10);
}

function multiples(low, high, step) {
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9 && found.length < 100; i += 1) found.push(i * step);
  return found;
}

/** Places and labels of about `count` ticks on an axis of numbers. */
export function linearTicks(low, high, count) {
  const step = niceStep(high - low || 1, count);
  return multiples(low, high, step).map((at) => [at, number(Math.abs(at) < step * 1e-6 ? 0 : at)]);
}

/** Ticks of steps: whole numbers, 20k for 20,000. */
export function stepTicks(low, high, count) {
  const step = Math.max(niceStep(high - low || 1, count), 1);
  return multiples(low, high, step).map((at) => {
    const size = Math.abs(at);
    if (size >= 1e6) return [at, `${number(at / 1e6, 5)}M`];
    return [at, size >= 1e4 ? `${number(at / 1e3, 5)}k` : String(Math.round(at))];
  });
}

/** Ticks at powers of ten, or between them where there are too few; `low` is positive. */
export function logTicks(low, high, count) {
  const first = Math.floor(Math.log10(low));
  const last = Math.ceil(Math.log10(high));
  const every = Math.max(Math.ceil((last - first) / Math.max(count, 1)), 1);
  const parts = last - first <= 2 ? [1, 2, 5] : [1];
  const found = [];
  for (let power = first; power <= last; power += every) {
    for (const part of parts) {
      const at = part * 10 ** power;
      if (at >= low && at <= high) found.push([at, number(at)]);
    }
  }
  return found.length > 1 ? found : linearTicks(low, high, count);
}

const TIMES = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

/** Ticks of seconds since a beginning. */
export function relativeTicks(low, high, count) {
  const rough = (high - low) / Math.max(count, 1);
  if (rough < 1) return linearTicks(low, high, count).map(([at, label]) => [at, `${label}s`]);
  const step = TIMES.find((time) => time >= rough) ?? niceStep((high - low) / 86400, count) * 86400;
  return multiples(low, high, step).map((at) => [at, at < 60 ? `${number(at)}s` : duration(at)]);
}

/** Ticks of points in time, milliseconds since the epoch, at round local times. */
export function timeTicks(low, high, count) {
  const rough = (high - low) / 1000 / Math.max(count, 1);
  const seconds = TIMES.find((time) => time >= rough) ?? Math.ceil(rough / 86400) * 86400;
  const step = (rough < 1 ? niceStep((high - low) / 1000, count) : seconds) * 1000;
  const shift = new Date(low).getTimezoneOffset() * 60_000;
  return multiples(low - shift, high - shift, step).map((at) => {
    const text = localTime(at + shift);
    if (step >= 86_400_000) return [at + shift, text.slice(5, 10)];
    if (step < 1000) return [at + shift, `${text.slice(11)}.${String(Math.round(at % 1000)).padStart(3, "0")}`];
    return [at + shift, step >= 60_000 ? text.slice(11, 16) : text.slice(11)];
  });
}
