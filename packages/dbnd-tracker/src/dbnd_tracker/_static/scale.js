// Axes: where their ticks stand, and numbers as people read them.

import { duration, localTime } from "./times.js";

const MOST = 5;
const STEPS = [1, 2, 2.5, 5];

/** A number to `digits` significant digits, without a tail of noughts; of large ones, all before the point. */
export function number(value, digits = 6) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (digits < 6 && Number.isInteger(value) && size < 1e12) return String(value);
  if (size >= 1e6 || size < 1e-4) {
    return value.toExponential(Math.min(digits, 4) - 1).replace(/\.?0+e/, "e").replace("e+", "e");
  }
  return String(size >= 1000 && digits < 6 ? Math.round(value) : Number(value.toPrecision(digits)));
}

function multiples(low, high, step) {
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9 && found.length < 100; i += 1) {
    found.push(i * step);
  }
  return found;
}

/** The finest round distance of ticks, no finer than `finest`, of which `most` at most stand between low and high. */
function roundStep(low, high, most = MOST, finest = 0) {
  const span = high - low || 1;
  let power = 10 ** Math.floor(Math.log10(span / most / 2));
  for (;;) {
    for (const part of STEPS) {
      const step = part * power;
      const isRound = !finest || step % finest === 0;
      if (isRound && step >= finest && multiples(low, high, step).length <= most) return step;
    }
    power *= 10;
  }
}

/** Places and labels of three to five ticks on an axis of numbers. */
export function linearTicks(low, high) {
  const step = roundStep(low, high);
  return multiples(low, high, step).map((at) => [at, number(Math.abs(at) < step * 1e-6 ? 0 : at)]);
}

/** Ticks of steps: whole numbers, 20k for 20,000. */
export function stepTicks(low, high) {
  return multiples(low, high, roundStep(low, high, MOST, 1)).map((at) => {
    const size = Math.abs(at);
    if (size >= 1e6) return [at, `${number(at / 1e6, 6)}M`];
    return [at, size >= 1e4 ? `${number(at / 1e3, 6)}k` : String(Math.round(at))];
  });
}

/** Ticks at every power of ten, as many with labels as `count`, or between them where there are few. */
export function logTicks(low, high, count = MOST) {
  const first = Math.ceil(Math.log10(low) - 1e-9);
  const last = Math.floor(Math.log10(high) + 1e-9);
  if (last - first < 1) {
    const parts = [first - 1, first].flatMap((power) => [1, 2, 5].map((part) => part * 10 ** power));
    const found = parts.filter((at) => at >= low && at <= high);
    return found.length > 1 ? found.map((at) => [at, number(at)]) : linearTicks(low, high);
  }
  const every = Math.ceil((last - first + 1) / count);
  return Array.from({ length: last - first + 1 }, (_, i) => {
    const at = 10 ** (first + i);
    return [at, (last - first - i) % every ? "" : number(at)];
  });
}

const TIMES = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

function timeStep(span, count) {
  return TIMES.find((time) => time >= span / count) ?? Math.ceil(span / count / 86400) * 86400;
}

/** Ticks of seconds since a beginning. */
export function relativeTicks(low, high, count = MOST) {
  if (high - low < count) return linearTicks(low, high).map(([at, label]) => [at, `${label}s`]);
  const step = timeStep(high - low, count);
  return multiples(low, high, step).map((at) => [at, at < 60 ? `${number(at)}s` : duration(at)]);
}

/** Ticks of points in time, milliseconds since the epoch, at round local times. */
export function timeTicks(low, high, count = MOST) {
  const span = (high - low) / 1000;
  const step = (span < count ? roundStep(0, span, count) : timeStep(span, count)) * 1000;
  const shift = new Date(low).getTimezoneOffset() * 60_000;
  return multiples(low - shift, high - shift, step).map((at) => {
    const text = localTime(at + shift);
    if (step >= 86_400_000) return [at + shift, text.slice(5, 10)];
    if (step < 1000) return [at + shift, `${text.slice(11)}.${String(Math.round(at % 1000)).padStart(3, "0")}`];
    return [at + shift, step >= 60_000 ? text.slice(11, 16) : text.slice(11)];
  });
}

/** Where a share of the rising `values` lies below. */
function quantile(values, share) {
  return values[Math.round((values.length - 1) * share)];
}

const LARGEST_PART = 0.05;
const SCALE_OF_ORDERS = 1000;

/** Whether these values, of which none is null, are shown best on a logarithmic scale; few that are far off do not count. */
export function spansOrders(values) {
  const rising = Float64Array.from(values).sort();
  return rising[0] > 0 && quantile(rising, 1 - LARGEST_PART) >= quantile(rising, LARGEST_PART) * SCALE_OF_ORDERS;
}

/** Lowest and highest of an axis that shows `values`, with some air; of a logarithmic one both are positive. */
export function rangeOf(values, { log, outliers }) {
  const shown = Float64Array.from(log ? values.filter((value) => value > 0) : values).sort();
  if (!shown.length) return log ? [0.1, 10] : [0, 1];
  const part = outliers ? LARGEST_PART : 0;
  const low = quantile(shown, part);
  const high = quantile(shown, 1 - part);
  if (log) return low === high ? [low / 2, high * 2] : [low / (high / low) ** 0.05, high * (high / low) ** 0.05];
  const air = low === high ? Math.abs(low) / 2 || 1 : high / 20 - low / 20;
  return [low - air, high + air];
}
