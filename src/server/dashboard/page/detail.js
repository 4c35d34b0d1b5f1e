// One rollout: where it stands, what it rests on, what is decided.

import { badge, clock, dollars, el, percent, phase, seconds, section, share, span, table, time, times, verdict } from "./dom.js";
import { bar, ceiling, figure, thin } from "./charts.js";
import { Actions } from "./actions.js";
import * as net from "./net.js";

const LEAST = 1000; // between two reads
const MOST = 10_000; // a release is read again at the latest
const KINDS = { Pass: "good", Fail: "bad", Inconclusive: "warn", Error: "warn" };
const ARMS = { Stable: "stable", Canary: "canary", Draining: "drain" };
const QUIET = new Set(["Healthy", "Pending", "Initializing"]);
const now = () => Date.now() / 1000;

export class Detail {
  constructor(namespace, name, { rollouts, news }) {
    Object.assign(this, { namespace, name, rollouts, news });
    this.end = new AbortController();
    this.actions = new Actions(this.end.signal);
    this.parts = new Map();
    this.release = "";
    this.moments = new Map();
    this.gates = new Map();
    this.body = el("div", { class: "detail" });
    this.root = el("article", { "aria-labelledby": "detail-title" },
      el("p", {}, el("a", { href: "#/" }, "← All rollouts")),
      el("h2", { id: "detail-title" }, name, el("span", { class: "dim" }, ` in ${namespace}`)), this.body);
    this.clock = setInterval(() => this.tick(), 1000);
    this.read();
  }

  close() {
    this.end.abort();
    clearInterval(this.clock);
    clearTimeout(this.later);
  }

  changed(keys) {
    if (keys.has(`${this.namespace}/${this.name}`)) this.soon();
  }

  run(key) {
    if (key === `${this.namespace}/${this.name}`) this.soon();
  }

  synced() {
    this.soon();
  }

  /** Reads again, but not more often than once a second, and one at a time. */
  soon() {
    if (this.reading) this.again = true;
    else if (!this.later) this.later = setTimeout(() => this.read(), Math.max(0, LEAST - (Date.now() - (this.readAt ?? 0))));
  }

  async read() {
    clearTimeout(this.later);
    this.later = undefined;
    this.reading = true;
    this.again = false;
    this.readAt = Date.now();
    try {
      const path = `rollouts/${encodeURIComponent(this.namespace)}/${encodeURIComponent(this.name)}`;
      const detail = await net.get(path, this.end.signal);
      if (!this.end.signal.aborted) this.show(detail);
    } catch (error) {
      if (!this.end.signal.aborted) this.fail(error);
    }
    this.reading = false;
    if (this.end.signal.aborted) return;
    if (this.again) this.soon();
    else if (!QUIET.has(this.detail?.status?.phase)) this.later = setTimeout(() => this.read(), MOST);
  }

  fail(error) {
    this.part("trouble", [error.message], () => el("p", { class: "card bad", role: "alert" }, error.message));
  }

  show(detail) {
    const before = this.detail?.status;
    this.detail = detail;
    this.remember(detail);
    const { status } = detail;
    if (before && before.phase !== status.phase) this.news(`${detail.name} is ${status.phase}`);
    else if (before && before.weights.applied !== status.weights.applied) this.news(`${status.weights.applied} % of new calls go to the canary`);
    if (!this.actions.root.isConnected) this.body.append(this.actions.root);
    this.actions.update(detail);
    this.part("trouble", [], () => undefined);
    const { weights, message, stepDisplay, waitingFor, nextAction, abort, step, userPaused, attempt, falseAbortSpent } = status;
    this.part("facts", [status.phase, weights, message, stepDisplay, waitingFor, nextAction, abort, step?.startedAt, userPaused, attempt, falseAbortSpent, detail.observed, detail.paused],
      () => facts(detail));
    this.part("steps", [detail.steps, status.currentStep, abort?.step], () => steps(detail));
    this.part("warnings", [status.preflight, status.conditions], () => warnings(status));
    this.part("weights", [detail.staircase, weights, detail.runs, status.phase, this.minute()], () => this.staircase());
    this.part("calls", [status.revisions, detail.history.moments, this.minute()], () => this.calls());
    this.part("gates", [status.gates, detail.runs, detail.runsHidden, detail.runsTrouble], () => gates(detail));
    this.part("curves", [detail.history.gates, this.minute()], () => this.curves());
    this.part("judges", [detail.runs], () => judges(detail));
    this.part("decisions", [status.decisions], () => decisions(status));
    this.tick();
  }

  /** Charts go on to the right while a release is under way. */
  minute() {
    return QUIET.has(this.detail.status.phase) ? 0 : Math.floor(now() / 5);
  }

  /** Replaces a part of the page when what it shows has changed. What was open stays open. */
  part(name, input, build) {
    const form = JSON.stringify(input);
    const old = this.parts.get(name);
    if (old?.form === form) return;
    const element = build() ?? el("div", { hidden: true });
    element.dataset.part = name;
    if (old) {
      const was = [...old.element.querySelectorAll("details")].map((box) => box.open);
      [...element.querySelectorAll("details")].forEach((box, at) => (box.open = was[at] ?? false));
      old.element.replaceWith(element);
    } else {
      this.body.append(element);
    }
    this.parts.set(name, { form, element });
  }

  /** Keeps the points of charts, also when the server has given them up. */
  remember({ status, history }) {
    const release = `${status.canaryRevision} ${status.attempt}`;
    if (release !== this.release) {
      this.release = release;
      this.moments.clear();
      this.gates.clear();
    }
    for (const moment of history.moments) this.moments.set(moment.t, moment);
    thin(this.moments);
    for (const { name, points } of history.gates) {
      if (!this.gates.has(name)) this.gates.set(name, new Map());
      for (const point of points) this.gates.get(name).set(point.t, point);
      thin(this.gates.get(name));
    }
  }

  /** Lengths of time that go on by themselves. */
  tick() {
    for (const element of this.root.querySelectorAll("[data-since]")) element.textContent = span(now() - Number(element.dataset.since));
    for (const element of this.root.querySelectorAll("[data-until]")) {
      const left = Number(element.dataset.until) - now();
      element.textContent = left > 0 ? `in ${span(left)}` : "now";
    }
  }

  range(first) {
    const { status } = this.detail;
    const last = Math.max(...(status.decisions ?? []).map((d) => seconds(d.at)), ...[...this.moments.keys()], first + 60);
    return QUIET.has(status.phase) ? last : Math.max(now(), first + 60);
  }

  staircase() {
    const { staircase, status, runs } = this.detail;
    if (staircase.length === 0) return section("Weight", el("p", { class: "dim" }, "No release yet."));
    const from = staircase[0].t;
    const to = this.range(from);
    const points = staircase.map((p) => [p.t, p.weight]);
    if (!QUIET.has(status.phase)) points.push([to, status.weights.applied]);
    else points.push([to, points.at(-1)[1]]);
    const lanes = runs.flatMap((run) => (run.status.gates ?? []).filter((g) => g.startedAt).map((gate) => ({
      name: gate.name, kind: KINDS[gate.verdict] ?? "busy", from: seconds(gate.startedAt),
      to: seconds(run.status.finishedAt) ?? to, label: `${gate.name}: ${gate.verdict ?? "undecided"}${gate.value ? `, ${gate.value}` : ""}`,
    }))).filter((lane) => lane.to >= from).slice(-10);
    const told = { Aborted: "bad", Promoted: "good", Overridden: "warn", PausedByUser: "warn", StepsPassed: "good", SplitDiffers: "bad" };
    const marks = (status.decisions ?? []).filter((d) => told[d.decision] && seconds(d.at) >= from)
      .map((d) => ({ t: seconds(d.at), name: d.decision, kind: told[d.decision] }));
    return section("Weight", figure({
      title: "Share of new calls that go to the canary, and the gates below it",
      about: `From ${points[0][1]} % at ${clock(points[0][0])} to ${points.at(-1)[1]} % at ${clock(points.at(-1)[0])}, ${lanes.length} gates.`,
      from, to, high: 100, label: (v) => `${Math.round(v)} %`, lanes, marks,
      series: [{ name: "canary weight", kind: "canary", points, steps: true }],
    }));
  }

  curves() {
    const figures = [...this.gates].sort(([a], [b]) => a.localeCompare(b)).flatMap(([name, known]) => {
      const points = [...known.values()].sort((a, b) => a.t - b.t);
      return points.length === 0 ? [] : points[0].value === undefined ? arms(name, points) : [values(name, points)];
    });
    return figures.length === 0 ? undefined : section("Both versions", el("div", { class: "pair" }, figures));
  }

  calls() {
    const { status, maxDrainSeconds } = this.detail;
    const revisions = status.revisions ?? [];
    const points = [...this.moments.values()].sort((a, b) => a.t - b.t);
    const series = revisions.map((revision) => ({
      name: `v${revision.number}`, kind: ARMS[revision.role] ?? "drain",
      points: points.flatMap((m) => m.live.filter(([number, , calls]) => number === revision.number && calls !== null).map(([, , calls]) => [m.t, calls])),
    }));
    const drawn = series.some((s) => s.points.length > 1);
    const most = Math.max(...series.flatMap((s) => s.points.map(([, calls]) => calls)), 1);
    const left = (r) => (r.role === "Draining" && r.retiredAt && r.replicas > 0
      ? el("span", {}, "ends ", el("span", { "data-until": seconds(r.retiredAt) + maxDrainSeconds }), " at the latest") : "");
    const counted = (r) => [r.liveCalls ?? "–", r.unreadPods ? ` and ${r.unreadPods} pods that cannot be read` : "", r.callsCut ? `, ${r.callsCut} cut` : ""].join("");
    const rows = revisions.map((r) => [`v${r.number}`, r.hash, r.role + (r.aborted ? ", aborted" : ""), `${r.ready} of ${r.replicas}`, counted(r), left(r)]);
    return section("Revisions and live calls",
      drawn ? figure({
        title: "Live calls", about: `Live calls of ${revisions.length} revisions, at most ${most}.`, from: points[0].t, to: this.range(points[0].t),
        high: ceiling(most), label: (v) => String(Math.round(v)), series, height: 110,
      }) : null,
      table("Revisions", ["Revision", "Hash", "Role", "Pods ready", "Live calls", "Drain"], rows));
  }
}

function facts(detail) {
  const { status } = detail;
  const { weights, abort, nextAction } = status;
  const rows = [];
  const fact = (name, ...value) => rows.push(el("dt", {}, name), el("dd", {}, ...value));
  const idle = status.canaryRevision === status.stableRevision && weights.applied === 0;
  fact("Weight", el("strong", { id: "weight" }, idle ? "100 % stable" : `${weights.applied} % canary`),
    idle ? ` ${status.stableRevision ?? ""}` : ` ${status.canaryRevision}, stable ${status.stableRevision ?? "none"}`,
    weights.desired === weights.applied ? "" : ` (asked for: ${weights.desired} %)`);
  if (weights.observed) fact("Split", weights.observed.message);
  if (status.stepDisplay) fact("Step", status.stepDisplay, !abort && status.step?.startedAt ? [", for ", el("span", { "data-since": seconds(status.step.startedAt) })] : "");
  if (status.waitingFor) fact("Waits for", status.waitingFor);
  if (nextAction) fact("Next", nextAction.what, nextAction.at ? [" ", el("span", { "data-until": seconds(nextAction.at) })] : "");
  if (abort) fact("Aborted", time(abort.at), abort.by ? ` by ${abort.by}` : "", `: ${abort.reason}`);
  if (abort?.explanation) fact("Why", abort.explanation);
  if (status.userPaused) fact("Paused", "by a person");
  if (detail.paused) fact("Paused", "by spec.paused");
  if (status.falseAbortSpent !== undefined) fact("Risk", `a revision that is no worse is aborted with a chance of ${Number((status.falseAbortSpent * 100).toPrecision(3))} % at most`);
  const attempt = status.attempt > 1 ? ` attempt ${status.attempt}` : "";
  return el("section", { class: "card", "aria-label": "Where it stands" },
    el("p", { class: "lead" }, phase(status.phase), attempt, " ", status.message ?? ""),
    detail.observed ? null : el("p", { class: "warn" }, "The operator has not seen the newest change of the spec yet."),
    el("dl", {}, rows));
}

function warnings(status) {
  const bad = (c) => (c.type === "InvalidSpec" ? c.status === "True" : ["RoutesInSync", "ReferencesResolved", "CallsReadable", "WeightsReachable"].includes(c.type) && c.status === "False");
  const lines = [
    ...(status.conditions ?? []).filter(bad).map((c) => `${c.type}: ${c.message}`),
    ...(status.preflight ?? []).map((f) => `${f.code}: ${f.sentence} Fix: ${f.fix}`),
  ];
  return lines.length === 0 ? undefined : section("Needs attention", el("ul", {}, lines.map((line) => el("li", { class: "lines" }, line))));
}

function steps({ steps: texts, status }) {
  const failed = status.abort?.step ? Number(status.abort.step.split("/")[0]) - 1 : undefined;
  const current = failed ?? status.currentStep;
  const state = (at) => (current === undefined || at > current ? "to come" : at < current ? "passed" : failed === undefined ? "now" : "aborted here");
  const kinds = { passed: "good", now: "busy", "aborted here": "bad", "to come": "" };
  return section("Steps", el("ol", { class: "steps" }, texts.map((text, at) =>
    el("li", { "aria-current": state(at) === "now" ? "step" : null }, text, " ", badge(state(at), kinds[state(at)])))));
}

function gates(detail) {
  const { status, runs } = detail;
  const found = new Map(runs.flatMap((run) => (run.status.gates ?? []).map((gate) => [`${run.kind}/${gate.name}`, gate])));
  const row = (gate) => {
    const newest = found.get(`${gate.kind}/${gate.name}`) ?? gate;
    const place = gate.kind.toLowerCase() + (gate.mode === "enforce" ? "" : `, ${gate.mode}`);
    const warnings = (newest.warnings ?? []).map((line) => el("div", { class: "warn" }, line));
    return [gate.name, place, verdict(newest.verdict ?? gate.verdict), newest.value ?? "–", evidence(newest.comparison), el("span", { class: "lines" }, newest.message ?? gate.message ?? "", warnings)];
  };
  const rows = (status.gates ?? []).map(row);
  if (rows.length === 0 && !detail.runsTrouble) return undefined;
  return section("Gates",
    detail.runsHidden ? el("p", { class: "dim" }, "You may not read voiceanalysisruns here: counts and judges are left out.") : null,
    detail.runsTrouble ? el("p", { class: "warn" }, `Counts and judges may be incomplete: ${detail.runsTrouble}`) : null,
    table("Gates", ["Gate", "Where", "Verdict", "Value", "Evidence", "In words"], rows, { class: "wide" }));
}

function evidence(c) {
  if (!c) return "";
  return bar(c.logEvidence / c.logAbortLine, "bad", `${times(c.logEvidence)} of ${times(c.logAbortLine)} against it`);
}

function arms(name, points) {
  const [from, to] = [points[0].t, Math.max(points.at(-1).t, points[0].t + 60)];
  const line = (arm) => points.flatMap((p) => (share(p[arm]) === undefined ? [] : [[p.t, share(p[arm])]]));
  const [canary, stable] = [line("canary"), line("stable")];
  const most = ceiling(Math.max(...[...canary, ...stable].map(([, v]) => v), 0.001));
  const last = points.at(-1);
  const high = Math.max(last.line * 1.15, ...points.map((p) => p.evidence), 1);
  const low = Math.min(0, ...points.map((p) => Math.max(p.evidence, -high)));
  const said = `canary ${last.canary.bad} of ${last.canary.calls}` + (last.stable ? `, stable ${last.stable.bad} of ${last.stable.calls}` : "");
  return [
    figure({
      title: `${name}: share of bad calls so far`, about: `${said}.`, from, to, high: most, label: percent, height: 110,
      series: [{ name: "canary", kind: "canary", points: canary }, { name: "stable", kind: "stable", points: stable }],
    }),
    figure({
      title: `${name}: evidence against the canary`, about: `${times(last.evidence)}; the release is aborted at ${times(last.line)}.`,
      from, to, low, high, label: times, height: 110, lines: [{ value: last.line, name: `abort at ${times(last.line)}`, kind: "bad" }],
      series: [{ name: "evidence", kind: "canary", points: points.map((p) => [p.t, p.evidence]) }],
    }),
  ];
}

function values(name, points) {
  const most = Math.max(...points.map((p) => p.value));
  return figure({
    title: `${name}: value`, about: `Newest: ${points.at(-1).value}.`, from: points[0].t, to: Math.max(points.at(-1).t, points[0].t + 60),
    low: Math.min(0, ...points.map((p) => p.value)), high: ceiling(most), label: (v) => String(Number(v.toPrecision(3))), height: 110,
    series: [{ name: "canary", kind: "canary", points: points.map((p) => [p.t, p.value]) }],
  });
}

function judges(detail) {
  const all = detail.runs.flatMap((run) => (run.status.gates ?? []).filter((g) => run.judges.includes(g.name)).map((gate) => ({ gate, run })));
  if (all.length === 0) return undefined;
  const rows = all.flatMap(({ gate }) => (gate.measurements ?? []).map((m) => [
    el("span", {}, gate.name, el("br"), time(m.finishedAt)), verdict(m.verdict),
    el("span", {}, (m.judge?.votes ?? []).map((vote) => [verdict(vote), " "])),
    m.judge?.model || "–", m.judge ? `${m.judge.tokens?.input ?? 0} in, ${m.judge.tokens?.output ?? 0} out` : "–",
    m.judge?.cached ? "asked before" : dollars(m.judge?.microDollars), el("span", { class: "lines" }, m.message ?? ""),
  ])).reverse();
  const spent = all.reduce((sum, { gate }) => sum + (gate.spent?.microDollars ?? 0), 0);
  const asked = all.reduce((sum, { gate }) => sum + (gate.spent?.verdicts ?? 0), 0);
  return section("Judges",
    spent > 0 || asked > 0 ? el("p", {}, `${asked} verdicts, ${dollars(spent)} in these runs.`) : null,
    table("Verdicts of judges, newest first", ["Judge", "Verdict", "Votes", "Model", "Tokens", "Cost", "Reason"], rows, { class: "wide" }));
}

function decisions(status) {
  const row = (d) => [time(d.at), d.step ?? "", d.decision,
    el("span", { class: "lines" }, d.reason ?? "", d.values?.length ? el("div", { class: "dim" }, d.values.join(", ")) : ""), d.by ?? ""];
  const rows = [...(status.decisions ?? [])].reverse().map(row);
  return section("Decisions", table("Decisions, newest first", ["When", "Step", "Decision", "Why", "By"], rows, { class: "wide" }));
}
