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
  waiting.set(token, { label, onState, timer: setTimeout(() => sendInTurn(token), UNDO_MS) });
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

/** Send a label after an earlier one of the same image, which could be recorded last otherwise. */
async function sendInTurn(token) {
  const entry = waiting.get(token);
  await sending.get(token);
  if (waiting.get(token) !== entry) return; // undone, chosen anew or sent meanwhile
  const sent = send([token]);
  sending.set(token, sent);
  await sent;
  sending.delete(token);
}

async function send(tokens, keepalive = false) {
  const entries = tokens.map((token) => ({ token, ...waiting.get(token) }));
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
