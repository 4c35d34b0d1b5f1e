// Builds elements. Text goes in as text: what comes from logs, judges and manifests is never read as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

export const el = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);
export const svg = (name, attributes, ...children) => fill(document.createElementNS(SVG, name), attributes, children);
export const id = (name) => document.getElementById(name);

/** A table with a caption, column heads, and rows of cells. The first cell of a row is its head. */
export function table(caption, heads, rows, attributes) {
  const cell = (value, at) => (at === 0 ? el("th", { scope: "row" }, value) : el("td", {}, value));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", attributes,
      el("caption", { class: "unseen" }, caption),
      el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map(cell))))));
}

export function section(title, ...children) {
  const name = "s-" + title.toLowerCase().replace(/[^a-z]+/g, "-");
  return el("section", { class: "card", "aria-labelledby": name }, el("h3", { id: name }, title), children);
}

/** A word with a colour; the word alone says it, too. */
export const badge = (word, kind) => el("span", { class: "badge " + (kind ?? "") }, word);

const PHASES = {
  Healthy: "good", Degraded: "bad", Invalid: "bad", Paused: "warn", Reverting: "warn",
  Progressing: "busy", Promoting: "busy", Initializing: "busy", Pending: "busy",
};
export const phase = (word) => badge(word, PHASES[word]);

const VERDICTS = { Pass: "good", Fail: "bad", Inconclusive: "warn", Error: "warn", PASS: "good", FAIL: "bad", UNSURE: "warn", INVALID: "warn" };
export const verdict = (word) => (word ? badge(word, VERDICTS[word]) : "undecided");

export const seconds = (text) => (text ? Date.parse(text) / 1000 : undefined);

export function clock(t, days) {
  const date = new Date(t * 1000);
  const pad = (n) => String(n).padStart(2, "0");
  const time = [date.getHours(), date.getMinutes(), date.getSeconds()].map(pad).join(":");
  return days ? `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} ${time}` : time;
}

export function span(length) {
  const s = Math.max(0, Math.round(length));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export function time(text) {
  const t = seconds(text);
  return t === undefined ? "" : el("time", { datetime: text }, clock(t, true));
}

/** Evidence is kept as a natural logarithm; people read how many times likelier. */
export function times(log) {
  const n = Math.exp(Math.min(log, 700));
  if (n >= 1e6) return `10^${Math.floor(log / Math.LN10)}×`;
  return n >= 10 ? `${Math.round(n)}×` : `${n.toPrecision(2)}×`;
}

export const share = (arm) => (arm && arm.calls > 0 ? arm.bad / arm.calls : undefined);
export const percent = (x) => (x === undefined ? "–" : `${(x * 100).toFixed(1)} %`);
export const dollars = (micro) => (micro === undefined || micro === null ? "–" : `$${(micro / 1e6).toFixed(4)}`);
