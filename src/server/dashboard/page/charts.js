// Charts as SVG. Each has a title and a description, and the same numbers as a table below it.

import { clock, el, svg, table } from "./dom.js";

const LEFT = 48;
const RIGHT = 12;
const TOP = 10;
const LANE = 22;
let serial = 0;

const MINUTE = 60;
const STRIDES = [1, 5, 10, 30, MINUTE, 5 * MINUTE, 10 * MINUTE, 30 * MINUTE, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86400, 7 * 86400];

/** Times for the marks of the axis: at most six, at round local times. */
function ticks(from, to) {
  const stride = STRIDES.find((s) => (to - from) / s <= 5) ?? (to - from) / 5;
  const zone = new Date(from * 1000).getTimezoneOffset() * 60;
  const all = [];
  for (let t = Math.ceil((from - zone) / stride) * stride + zone; t <= to; t += stride) all.push(t);
  return { all, label: (t) => (stride >= 86400 ? clock(t, true).slice(5, 10) : clock(t).slice(0, stride < MINUTE ? 8 : 5)) };
}

function path(points, x, y, steps) {
  let text = "";
  points.forEach(([t, value], at) => {
    const [px, py] = [x(t).toFixed(1), y(value).toFixed(1)];
    if (at === 0) text += `M${px} ${py}`;
    else text += steps ? `H${px}V${py}` : `L${px} ${py}`;
  });
  return text;
}

/**
 * A chart over time.
 *
 * series: { name, kind, points: [[seconds, number]], steps }; lines: { value, name, kind }, level ones;
 * lanes: { name, kind, from, to, label }, bars below; marks: { t, name, kind }, upright lines.
 */
export function chart({ title, about, from, to, low = 0, high, label, series, lines = [], lanes = [], marks = [], height = 150 }) {
  const name = `chart-${(serial += 1)}`;
  const WIDTH = innerWidth < 640 ? 360 : 540;
  const whole = TOP + height + 24 + lanes.length * LANE;
  const length = Math.max(1, to - from);
  const x = (t) => LEFT + ((Math.min(Math.max(t, from), to) - from) / length) * (WIDTH - LEFT - RIGHT);
  const y = (v) => TOP + height - ((Math.min(Math.max(v, low), high) - low) / (high - low || 1)) * height;
  const across = ticks(from, to);
  const grid = [0, 0.25, 0.5, 0.75, 1].map((part) => low + part * (high - low));
  const floor = TOP + height;
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${whole}`, role: "img", "aria-labelledby": `${name}-t ${name}-d`, class: "chart" },
    svg("title", { id: `${name}-t` }, title),
    svg("desc", { id: `${name}-d` }, about),
    grid.map((v) => [
      svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(v), y2: y(v) }),
      svg("text", { class: "axis end", x: LEFT - 6, y: y(v) + 4 }, label(v)),
    ]),
    across.all.map((t) => [
      svg("line", { class: "grid", x1: x(t), x2: x(t), y1: TOP, y2: floor }),
      svg("text", { class: "axis middle", x: Math.min(Math.max(x(t), LEFT + 12), WIDTH - RIGHT - 22), y: floor + 15 }, across.label(t)),
    ]),
    lines.map(({ value, name: text, kind }) => [
      svg("line", { class: `level ${kind}`, x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
      svg("text", { class: `axis end ${kind}`, x: WIDTH - RIGHT - 4, y: y(value) > TOP + 14 ? y(value) - 4 : y(value) + 13 }, text),
    ]),
    marks.map(({ t, name: text, kind }) =>
      svg("line", { class: `mark ${kind}`, x1: x(t), x2: x(t), y1: TOP, y2: floor }, svg("title", {}, `${clock(t)} ${text}`))),
    series.map(({ points, kind, steps }) => svg("path", { class: `line ${kind}`, d: path(points, x, y, steps) })),
    lanes.map((lane, at) => {
      const top = floor + 22 + at * LANE;
      const left = x(lane.from);
      const right = Math.max(x(lane.to), left + 3);
      const late = left > WIDTH * 0.5;
      return svg("g", {},
        svg("rect", { class: `lane ${lane.kind}`, x: left, y: top + 3, width: right - left, height: 5, rx: 2 }),
        svg("text", { class: late ? "axis end" : "axis", x: late ? right : left, y: top + LANE - 2 }, lane.label),
        svg("title", {}, lane.label));
    }));
  return picture;
}

function key(series, lines) {
  const all = [...series, ...lines];
  return el("ul", { class: "key" }, all.map(({ name, kind }) =>
    el("li", {}, svg("svg", { viewBox: "0 0 22 8", class: "sample", "aria-hidden": "true" },
      svg("line", { class: `line ${kind}`, x1: 0, x2: 22, y1: 4, y2: 4 })), name)));
}

/** What a series says at each moment. Points and moments are in the order of their times. */
function values(points, moments) {
  let next = 0;
  return moments.map((t) => {
    while (next < points.length && points[next][0] <= t) next += 1;
    return points[next - 1]?.[1];
  });
}

/** Points that an open page keeps of a series. */
const POINTS = 1000;

/** Keeps points by their times within a bound: when there are more, every second one goes. First and last stay. */
export function thin(points) {
  if (points.size <= POINTS) return;
  const times = [...points.keys()].sort((a, b) => a - b);
  times.forEach((t, at) => at % 2 === 1 && at < times.length - 1 && points.delete(t));
}

/** Numbers behind a chart: a row for each moment at which something changed. Made when somebody looks. */
function numbers(caption, series, show) {
  const make = () => {
    const moments = [...new Set(series.flatMap((s) => s.points.map(([t]) => t)))].sort((a, b) => a - b);
    const columns = series.map((s) => values(s.points, moments));
    const rows = moments.map((t, at) => [clock(t, true), ...columns.map((values) => (values[at] === undefined ? "–" : show(values[at])))]);
    return table(caption, ["Time", ...series.map((s) => s.name)], rows);
  };
  const box = el("details", {}, el("summary", {}, "Numbers as a table"));
  box.addEventListener("toggle", () => {
    if (box.open && box.children.length === 1) box.append(make());
  });
  return box;
}

/** A chart with its key and its table. */
export function figure(options) {
  const { title, series, lines = [], label } = options;
  const drawn = series.filter((s) => s.points.length > 0);
  if (drawn.length === 0) return el("p", { class: "dim" }, "Nothing to draw yet.");
  return el("figure", {},
    el("figcaption", {}, title),
    chart({ ...options, series: drawn }),
    key(drawn, lines),
    numbers(title, drawn, label));
}

/** A round number that is at least `most`. */
export function ceiling(most) {
  if (!(most > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 4, 5, 8, 10].map((n) => n * unit).find((n) => n >= most * 1.0001) ?? 10 * unit;
}

/** How far evidence has come on the way to a line: a bar with its words beside it. */
export function bar(part, kind, words) {
  const wide = Math.min(Math.max(part, 0), 1) * 100;
  return el("span", { class: "bar" },
    svg("svg", { viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { class: "rest", width: 100, height: 6 }), svg("rect", { class: `lane ${kind}`, width: wide, height: 6 })),
    words);
}
