// Commands: what may be given now, a dialog that asks, and what the operator made of it.

import { el, id } from "./dom.js";
import * as net from "./net.js";

const PATIENCE = 60;
const WORDS = { promote: "Promote", promoteFull: "Promote", abort: "Abort", retry: "Retry", pause: "Pause", resume: "Resume" };

/** The commands that make sense in a state. */
export function sensible(status) {
  const release = status.canaryRevision && status.stableRevision && status.canaryRevision !== status.stableRevision;
  if (!release) return [];
  if (status.abort) return ["retry"];
  const stop = status.userPaused ? "resume" : "pause";
  return ["promote", stop, "abort"];
}

function meaning(verb, detail) {
  const { status } = detail;
  const calls = status.liveCalls ? ` Live calls now: ${status.liveCalls}.` : "";
  const to = `revision ${status.canaryRevision}`;
  switch (verb) {
    case "promote": return `Ends the pause of ${to} at ${status.weights.applied} % of new calls. A failed gate is never overridden.${calls}`;
    case "abort": return `All new calls go back to ${status.stableRevision} at once. Calls that are under way go on until they end.${calls}`;
    case "retry": return `Starts ${to} again from its first step, with fresh evidence.`;
    case "pause": return "Stops the steps where they are. Gates go on, and may still abort.";
    default: return "The steps go on.";
  }
}

// The step may be another one by the time that the operator looks: these hold for the one that is seen.
const ENDS_STEP = ["promote", "skipStep"];

/** Asks the person; gives the order, or undefined. */
function confirm(verb, detail) {
  const dialog = id("order");
  const [yes, no, reason, full] = ["order-yes", "order-no", "order-reason", "order-full"].map(id);
  id("order-title").textContent = `${WORDS[verb]} ${detail.name}?`;
  id("order-what").textContent = meaning(verb, detail);
  id("order-full-row").hidden = verb !== "promote";
  yes.textContent = WORDS[verb];
  yes.className = verb === "abort" ? "danger" : "main";
  reason.value = "";
  full.checked = false;
  return new Promise((resolve) => {
    const done = (value) => {
      yes.onclick = no.onclick = dialog.oncancel = reason.onkeydown = null;
      dialog.close();
      resolve(value);
    };
    yes.onclick = () => done({ verb: full.checked && verb === "promote" ? "promoteFull" : verb, reason: reason.value });
    no.onclick = () => done(undefined);
    dialog.oncancel = () => done(undefined);
    reason.onkeydown = (event) => {
      if (event.key === "Enter") {
        event.preventDefault();
        yes.click();
      }
    };
    dialog.showModal();
    reason.focus();
  });
}

async function outcome(namespace, name, signal) {
  for (let second = 0; second < PATIENCE && !signal.aborted; second += 1) {
    const status = await net.get(`actions/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`, signal);
    if (status.state) return status;
    await new Promise((resume) => setTimeout(resume, 1000));
  }
  return undefined;
}

/** The buttons, and the line that says what came of them. */
export class Actions {
  constructor(signal) {
    this.signal = signal;
    this.buttons = el("div", { class: "buttons" });
    this.said = el("p", { id: "said", role: "status" });
    this.root = el("div", { class: "actions" }, this.buttons, this.said);
  }

  update(detail) {
    this.detail = detail;
    const { allowed, why } = detail.actions;
    const verbs = sensible(detail.status);
    const form = JSON.stringify([verbs, allowed, why]);
    if (form === this.form) return;
    this.form = form;
    const button = (verb) => el("button", {
      type: "button", id: `do-${verb}`, class: verb === "abort" ? "danger" : null, disabled: !allowed,
      "aria-describedby": allowed ? null : "why-not", onclick: () => this.give(verb),
    }, WORDS[verb] + "…");
    this.buttons.replaceChildren(...verbs.map(button), ...(allowed || verbs.length === 0 ? [] : [el("span", { id: "why-not", class: "dim" }, why)]));
  }

  say(text, kind) {
    this.said.textContent = text;
    this.said.className = kind ?? "";
  }

  async give(verb) {
    // Bound to what the person sees now, not to what comes while the dialog is open.
    const { namespace, name, status } = this.detail;
    const order = await confirm(verb, this.detail);
    if (!order) return;
    const word = WORDS[order.verb];
    try {
      this.say(`${word}: sending…`);
      const path = `rollouts/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}/actions`;
      const step = ENDS_STEP.includes(order.verb) ? status.stepDisplay || undefined : undefined;
      const made = await net.post(path, { ...order, revision: status.canaryRevision, step });
      this.say(`${word}: ${made.name} is created; the operator looks at it…`);
      const end = await outcome(namespace, made.name, this.signal);
      if (!end) this.say(`${word}: ${made.name} is created, but the operator has not answered. Is it running?`, "warn");
      else if (end.state === "Applied") this.say(`${word}: done. ${end.message ?? ""}`, "good");
      else this.say(`${word}: refused. ${end.message ?? ""}`, "bad");
    } catch (error) {
      if (!this.signal.aborted) this.say(`${word}: ${error.message}`, "bad");
    }
  }
}
