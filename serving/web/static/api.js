// Calls of the server: errors with their reasons, retries when it is overloaded, and the token, kept in memory only.

import { byId } from "./dom.js";

const ATTEMPTS = 6;
let token = "";
let asking = null; // the promise of the open dialog: calls that fail together share it

/** An error that the server reported, or that kept it from being reached. */
export class ApiError extends Error {
  constructor(status, reason, message, retryAfter) {
    super(message);
    this.status = status;
    this.reason = reason;
    this.retryAfter = retryAfter;
  }
}

/** Whether a token was given. */
export const hasToken = () => token !== "";

/** GET or, with a body, POST; resolves to the response. */
export async function request(path, { body, type, signal, keepalive } = {}) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await once(path, body, type, signal, keepalive);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 401 && (await askForToken(error.message))) continue;
      if (!(error.status === 429 || error.status === 503) || attempt >= ATTEMPTS) throw error;
      const seconds = Math.max(error.retryAfter || 0, 0.2 * 2 ** attempt) * (0.75 + Math.random() / 2);
      await new Promise((resolve) => setTimeout(resolve, 1000 * Math.min(seconds, 10)));
    }
  }
}

/** The JSON of a response. */
export const json = async (path, options) => (await request(path, options)).json();

/** POST JSON; resolves to the JSON of the response. */
export const post = (path, document, options = {}) =>
  json(path, { ...options, body: JSON.stringify(document), type: "application/json" });

/** Read server-sent events until the stream ends; calls `onEvent(name, data)` with parsed JSON. */
export async function events(path, signal, onEvent) {
  const response = await request(path, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffered = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffered += value;
    const parts = buffered.split(/\r?\n\r?\n/);
    buffered = parts.pop();
    for (const part of parts) {
      const fields = part.split(/\r?\n/).filter((line) => !line.startsWith(":"));
      const name = fields.find((line) => line.startsWith("event:"))?.slice(6).trim();
      const data = fields.filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
      if (data) onEvent(name || "message", JSON.parse(data));
    }
  }
}

async function once(path, body, type, signal, keepalive) {
  const headers = {};
  if (token) headers.Authorization = `Bearer ${token}`;
  if (type) headers["Content-Type"] = type;
  let response;
  try {
    response = await fetch(path, { method: body === undefined ? "GET" : "POST", body, headers, signal, keepalive });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "UNREACHABLE", "The server cannot be reached. Is it still running?");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  const message = problem.detail || `The server answered ${response.status} ${response.statusText}`;
  throw new ApiError(response.status, problem.reason || "", message, Number(response.headers.get("Retry-After")) || 0);
}

/** Ask for the token; resolves to whether there is a new one. */
function askForToken(reason) {
  asking ||= new Promise((resolve) => {
    const dialog = byId("token-dialog");
    const input = byId("token");
    byId("token-reason").textContent = reason;
    input.value = "";
    dialog.returnValue = "cancel";
    dialog.addEventListener("close", () => {
      asking = null;
      const given = dialog.returnValue === "use" ? input.value.trim() : "";
      input.value = "";
      if (given) token = given;
      resolve(given !== "");
    }, { once: true });
    dialog.showModal();
    input.focus();
  });
  return asking;
}
