// Labels of predictions. A label is sent a few seconds after it was chosen, so that it can be undone until then.

import { post } from "./api.js";

const UNDO_MS = 4000;
const MOST = 64; // labels in one request
const waiting = new Map(); // token -> { label, timer, onState }
const sending = new Map(); // token -> promise that resolves when its label was answered

/**
 * Choose the label of a prediction.
 *
 * @param onState called with ("waiting" | "sending" | "recorded" | "failed" | "undone", label, message)
 */
export function choose(token, label, onState) {
  clearTimeout(waiting.get(token)?.timer);
  waiting.set(token, { label, onState, timer: setTimeout(() => send([token]), UNDO_MS) });
  onState("waiting", label);
}

/** Take back a label that was not sent yet; the newest one without a token. Returns whether there was one. */
export function undo(token = [...waiting.keys()].pop()) {
  const entry = waiting.get(token);
  if (!entry) return false;
  clearTimeout(entry.timer);
  waiting.delete(token);
  entry.onState("undone", entry.label);
  return true;
}

async function send(tokens, keepalive = false) {
  const chosen = tokens.map((token) => ({ token, entry: waiting.get(token) }));
  const earlier = tokens.map((token) => sending.get(token)).filter(Boolean);
  if (earlier.length && !keepalive) await Promise.all(earlier); // else an earlier label could be recorded last
  const entries = chosen.filter(({ token, entry }) => waiting.get(token) === entry) // not undone or chosen anew
    .map(({ token, entry }) => ({ token, ...entry }));
  if (!entries.length) return;
  const done = record(entries, keepalive);
  for (const { token } of entries) sending.set(token, done);
  await done;
  for (const { token } of entries) if (sending.get(token) === done) sending.delete(token);
}

async function record(entries, keepalive) {
  for (const each of entries) {
    clearTimeout(each.timer);
    waiting.delete(each.token);
    each.onState("sending", each.label);
  }
  try {
    const labels = entries.map(({ token, label }) => ({ token, label }));
    const { results } = await post("/v1/labels", { labels }, { keepalive });
    entries.forEach((each, index) => {
      const { recorded, error } = results[index];
      if (recorded) each.onState("recorded", recorded.label, recorded.previousLabel);
      else each.onState("failed", each.label, error.message);
    });
  } catch (error) {
    for (const each of entries) each.onState("failed", each.label, error.message);
  }
  for (const { token } of entries) { // another label was chosen meanwhile
    const newer = waiting.get(token);
    newer?.onState("waiting", newer.label);
  }
}

// what is still waiting is sent when the page is left
addEventListener("pagehide", () => {
  const tokens = [...waiting.keys()];
  for (let first = 0; first < tokens.length; first += MOST) send(tokens.slice(first, first + MOST), true);
});
