// Where everything meets: what is known, what is shown, and the stream that changes it.

import { id } from "./dom.js";
import * as net from "./net.js";
import { List } from "./list.js";
import { Detail } from "./detail.js";

const rollouts = new Map(); // "namespace/name" -> line of the list
let arriving; // a list that is not complete
let complete = false; // one has come as a whole
let stream; // ends what the person who is signed in, or is about to be, has begun
let shown; // List, Detail or undefined

const key = (r) => `${r.namespace}/${r.name}`;

function take(events) {
  const changed = new Set();
  for (const event of events) {
    if (event.type === "snapshot") {
      arriving ??= new Map();
      for (const rollout of event.rollouts) arriving.set(key(rollout), rollout);
    } else if (event.type === "synced") {
      for (const name of rollouts.keys()) if (!arriving?.has(name)) changed.add(name);
      for (const [name, rollout] of arriving ?? []) if (rollouts.get(name)?.version !== rollout.version) changed.add(name);
      rollouts.clear();
      for (const [name, rollout] of arriving ?? []) rollouts.set(name, rollout);
      arriving = undefined;
      complete = true;
      upToDate(event);
      shown?.synced?.();
      performance.mark("list");
    } else if (event.type === "changed") {
      rollouts.set(key(event.rollout), event.rollout);
      changed.add(key(event.rollout));
    } else if (event.type === "deleted") {
      rollouts.delete(key(event));
      changed.add(key(event));
    } else if (event.type === "run") {
      shown?.run?.(key(event));
    } else if (event.type === "heartbeat") {
      upToDate(event);
    }
  }
  if (changed.size > 0) shown?.changed(changed);
}

/** The stream may go on where the server itself hears nothing new. */
function upToDate({ trouble }) {
  state(trouble ? "stale" : "live", trouble);
}

const STATES = { connecting: "Connecting…", live: "Live", stale: "May be old", lost: "Not connected, trying again", refused: "Signed out" };

function state(word, why) {
  const text = why ? `${STATES[word]}: ${why}` : STATES[word];
  const line = id("connection");
  if (line.textContent !== text) line.textContent = text;
  line.className = word;
  // What a broken stream has told in part is told anew.
  if (word === "connecting") arriving = undefined;
  if (word === "refused") signIn(why);
}

function news(text) {
  id("news").textContent = text;
}

/** Nothing of one person is left for the next. */
function forget() {
  leave();
  rollouts.clear();
  complete = false;
  id("who").textContent = "";
  id("sign-out").hidden = true;
  id("main").replaceChildren();
}

function signIn(why) {
  forget();
  const page = id("sign-in-page").content.cloneNode(true);
  id("main").replaceChildren(page);
  id("sign-in-why").textContent = why ?? "";
  id("sign-in").addEventListener("submit", (event) => {
    event.preventDefault();
    net.setToken(id("token").value);
    begin();
  });
  id("token").focus();
}

function leave() {
  stream?.abort();
  stream = undefined;
  arriving = undefined;
  shown?.close?.();
  shown = undefined;
}

async function begin() {
  leave();
  const mine = (stream = new AbortController());
  state("connecting");
  let me;
  try {
    me = await net.get("me", mine.signal);
  } catch (error) {
    // Somebody has signed out meanwhile, or begun anew.
    if (mine.signal.aborted) return;
    if (error.status === 401) return state("refused", net.hasToken() ? error.message : "");
    state("lost", error.message);
    setTimeout(() => mine.signal.aborted || begin(), 3000);
    return;
  }
  if (mine.signal.aborted) return;
  id("who").textContent = me.name;
  id("sign-out").hidden = !net.hasToken();
  show();
  net.follow((events) => mine.signal.aborted || take(events), (word, why) => mine.signal.aborted || state(word, why), mine.signal);
}

/** The address says what is shown: #/ or #/namespace/name. */
function show() {
  shown?.close?.();
  const [, namespace, name] = location.hash.match(/^#\/([^/]+)\/([^/]+)$/) ?? [];
  document.title = name ? `${name} – VoiceRollout` : "VoiceRollout";
  shown = name ? new Detail(decodeURIComponent(namespace), decodeURIComponent(name), { rollouts, news }) : new List(rollouts, news, complete);
  id("main").replaceChildren(shown.root);
}

id("sign-out").addEventListener("click", () => {
  net.setToken("");
  state("refused", "");
});
addEventListener("hashchange", () => {
  if (net.fromAddress()) {
    forget();
    return begin();
  }
  if (location.hash === "#main") return;
  if (!stream) return begin();
  // Nothing is shown yet: then the beginning shows it.
  if (!shown) return;
  show();
  id("main").focus();
});
addEventListener("pagehide", leave);
addEventListener("pageshow", (event) => event.persisted && begin());
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  id("main").focus();
});

net.fromAddress();
begin();
