// The list. Rows are made once and changed in place: a change of one rollout touches one row.

import { el, phase } from "./dom.js";

const address = (r) => `#/${encodeURIComponent(r.namespace)}/${encodeURIComponent(r.name)}`;
const ATTENTION = { Degraded: 0, Invalid: 0, Paused: 1, Reverting: 1, Promoting: 2, Progressing: 2 };
const urgency = (r) => ATTENTION[r.phase] ?? 3;
const before = (a, b) => urgency(a) - urgency(b) || a.namespace.localeCompare(b.namespace) || a.name.localeCompare(b.name);

function weight(r) {
  const text = r.canary === r.stable || !r.canary ? "–" : `${r.weight} %`;
  return r.desired !== r.weight && text !== "–" ? `${text} → ${r.desired} %` : text;
}

function cells(r) {
  return [
    el("th", { scope: "row" }, el("a", { href: address(r) }, r.name)),
    el("td", {}, r.namespace),
    el("td", {}, phase(r.phase)),
    el("td", { class: "number" }, r.step),
    el("td", { class: "number" }, weight(r)),
    el("td", {}, r.calls),
    el("td", { class: "words" }, r.waitingFor || r.message),
  ];
}

export class List {
  /** `complete`: whether `rollouts` is all there is. */
  constructor(rollouts, news, complete) {
    this.complete = complete;
    this.rollouts = rollouts;
    this.news = news;
    this.rows = new Map();
    this.filter = el("input", { id: "filter", type: "search", autocomplete: "off", oninput: () => this.sift() });
    this.only = el("input", { type: "checkbox", onchange: () => this.sift() });
    this.count = el("p", { id: "count", role: "status" });
    this.body = el("tbody", {});
    const heads = ["Name", "Namespace", "Phase", "Step", "Canary", "Live calls", "What it waits for"];
    this.root = el("section", { "aria-labelledby": "list-title" },
      el("h2", { id: "list-title" }, "Rollouts"),
      el("div", { class: "tools" },
        el("label", { for: "filter" }, "Filter"), this.filter,
        el("label", {}, this.only, " only what is in a release"), this.count),
      el("div", { class: "card scroll" },
        el("table", { class: "list" },
          el("caption", { class: "unseen" }, "Rollouts, those that need attention first"),
          el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
          this.body)));
    this.sort();
  }

  synced() {
    this.complete = true;
    this.sort();
  }

  changed(keys) {
    let order = false;
    for (const key of keys) {
      const rollout = this.rollouts.get(key);
      const old = this.rows.get(key);
      if (!rollout || !old || urgency(old.rollout) !== urgency(rollout)) order = true;
      else this.fill(old, rollout);
      if (rollout && old && old.rollout.phase !== rollout.phase) this.news(`${rollout.name} is ${rollout.phase}`);
    }
    if (order) this.sort();
    else this.sift();
  }

  fill(row, rollout) {
    if (row.rollout.version === rollout.version && row.element.firstChild) return;
    row.rollout = rollout;
    // The link stays, and with it the focus.
    const fresh = cells(rollout);
    if (row.element.firstChild) [...row.element.children].slice(1).forEach((old, at) => old.replaceWith(fresh[at + 1]));
    else row.element.append(...fresh);
    row.text = `${rollout.namespace}/${rollout.name} ${rollout.phase} ${rollout.waitingFor} ${rollout.message}`.toLowerCase();
  }

  /** All rows in order, in one go. */
  sort() {
    const focused = document.activeElement?.closest?.("tbody tr");
    const sorted = [...this.rollouts.values()].sort(before);
    const rows = new Map();
    for (const rollout of sorted) {
      const key = `${rollout.namespace}/${rollout.name}`;
      const row = this.rows.get(key) ?? { element: el("tr", {}), rollout };
      this.fill(row, rollout);
      rows.set(key, row);
    }
    this.rows = rows;
    const fragment = document.createDocumentFragment();
    for (const row of rows.values()) fragment.append(row.element);
    this.body.replaceChildren(fragment);
    if (focused?.isConnected) focused.querySelector("a")?.focus({ preventScroll: true });
    this.sift();
  }

  sift() {
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let seen = 0;
    for (const { element, text, rollout } of this.rows.values()) {
      const hit = words.every((word) => text.includes(word)) && (!this.only.checked || urgency(rollout) < 3);
      if (element.hidden === hit) element.hidden = !hit;
      if (hit) seen += 1;
    }
    const none = this.complete ? "No VoiceRollouts that you may list" : "";
    const text = this.rows.size === 0 ? none : `${seen} of ${this.rows.size}`;
    if (this.count.textContent !== text) this.count.textContent = text;
  }
}
