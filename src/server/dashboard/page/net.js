// Requests with the token, and the stream. The token lives in memory and in this tab's sessionStorage; never in a URL
// that is sent, never in a cookie.

const KEY = "voicerollout-token";
const QUIET = 40_000; // two heartbeats and a bit
let token = sessionStorage.getItem(KEY) ?? "";

/** Takes a token out of the part of the address that browsers do not send; whether there was one. */
export function fromAddress() {
  const given = /^#token=([A-Za-z0-9_.-]+)$/.exec(location.hash);
  if (given) {
    setToken(given[1]);
    history.replaceState(null, "", location.pathname + "#/");
  }
  return given !== null;
}

export const hasToken = () => token !== "";

export function setToken(text) {
  token = text.trim();
  if (token) sessionStorage.setItem(KEY, token);
  else sessionStorage.removeItem(KEY);
}

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  // A proxy may add the header by itself.
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  if (options.body) headers["Content-Type"] = "application/json";
  const response = await fetch(`/dashboard/api/${path}`, { ...options, headers, cache: "no-store", credentials: "omit" });
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Refused(response.status, body.error ?? `the server answers ${response.status}`);
}

export const get = async (path, signal) => (await ask(path, { signal })).json();
export const post = async (path, body) => (await ask(path, { method: "POST", body: JSON.stringify(body) })).json();

/** Reads the stream once, line by line; returns when it ends. */
async function read(take, signal) {
  const stop = new AbortController();
  signal.addEventListener("abort", () => stop.abort(), { once: true });
  let timer;
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => stop.abort(), QUIET);
  };
  try {
    alive();
    const response = await ask("stream", { signal: stop.signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      alive();
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      take(lines.filter((line) => line !== "").map((line) => JSON.parse(line)));
    }
  } finally {
    clearTimeout(timer);
    stop.abort();
  }
}

/** Reads the stream until `signal`, again and again; tells `state` how it stands. A refused token ends it. */
export async function follow(take, state, signal) {
  let wait = 500;
  while (!signal.aborted) {
    try {
      state("connecting");
      await read((events) => {
        wait = 500;
        take(events);
      }, signal);
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && (error.status === 401 || error.status === 403)) {
        state("refused", error.message);
        return;
      }
      state("lost", error instanceof Refused ? error.message : "no connection");
    }
    await new Promise((resume) => setTimeout(resume, wait * (0.5 + Math.random())));
    wait = Math.min(wait * 2, 15_000);
  }
}
