// The versions: state, engine, and the figures of training and export.

import { hasToken, request } from "./api.js";
import { byId, count, h, percent, rateText, replace, shortName } from "./dom.js";

const POLL_MS = 5000;
const STATES = {
  MODEL_STATE_LOADING: "loading", MODEL_STATE_READY: "ready", MODEL_STATE_DRAINING: "draining", MODEL_STATE_REFUSED: "failed",
};
const manifests = new Map(); // resource name -> manifest, which does not change
let timer = null;
let shown = "";

/** Show the page, and keep it up to date. */
export async function enter(listModels) {
  leave();
  const round = {};
  timer = round;
  shown = "";
  while (timer === round) {
    try {
      const models = await listModels();
      const found = await Promise.all(models.map(async (model) => [model, await manifestOf(model)]));
      if (timer === round) draw(found);
    } catch (error) {
      byId("versions").replaceChildren(h("p", { class: "error", role: "alert" }, error.message));
      shown = "";
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** Stop following. */
export function leave() {
  timer = null;
}

async function manifestOf(model) {
  if (model.state !== "MODEL_STATE_READY") return null;
  if (!manifests.has(model.name)) {
    manifests.set(model.name, await readManifest(model.name).catch(() => null));
  }
  return manifests.get(model.name);
}

async function readManifest(name) {
  const response = await request(`/v1/${name}/manifest`);
  return { ...(await response.json()), report: response.headers.has("Link") };
}

function draw(found) {
  const text = JSON.stringify(found);
  if (text === shown) return; // what a person reads or selects stays
  shown = text;
  replace(byId("versions"), ...(found.length ? found.map(([model, manifest]) => version(model, manifest))
    : [h("p", { class: "notice" }, "There are no models.")]));
}

function version(model, manifest) {
  const state = STATES[model.state] || "unknown";
  const facts = [
    ["shadow of", model.shadowShare === undefined ? "" : `${percent(model.shadowShare, 0)} of the requests`],
    ["network", model.arch],
    ["engine", model.engine],
    ["why this engine", model.engineReason],
    ["classes", model.classes.length ? `${count(model.classes.length)}: ${model.classes.slice(0, 12).join(", ")}${model.classes.length > 12 ? ", …" : ""}` : ""],
    ["views", views(model)],
    ["validation accuracy", accuracy(model, manifest)],
    ["adaptive views below", model.adaptiveThreshold === undefined ? "" : `a confidence of ${percent(model.adaptiveThreshold)}`],
    ["exported", manifest ? new Date(manifest.created).toLocaleString() : ""],
  ];
  return h("article", { class: "version" },
    h("h3", {}, shortName(model.name), " ", h("span", { class: `badge ${state}` }, state),
      model.primary ? [" ", h("span", { class: "badge ready" }, "primary")] : "",
      model.shadowShare === undefined ? "" : [" ", h("span", { class: "badge shadow" }, "shadow")]),
    model.stateReason ? h("p", { class: state === "failed" ? "error" : "hint" }, model.stateReason) : "",
    h("dl", { class: "facts" }, ...facts.filter(([, value]) => value).map(([name, value]) =>
      h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    manifest ? parityTable(manifest) : "",
    manifest && manifest.report ? reportLink(model) : "");
}

function views(model) {
  if (!model.maxViews) return "";
  const recommended = model.recommendedViews === model.defaultViews ? ", as recommended" : `; ${model.recommendedViews} recommended`;
  return `${model.defaultViews} by default${recommended}; at most ${model.maxViews}`;
}

function accuracy(model, manifest) {
  const metrics = manifest?.metrics;
  if (metrics?.accuracy) return `${rateText(metrics.accuracy)} on ${count(metrics.n)} images`;
  return model.validationAccuracy === undefined ? "" : percent(model.validationAccuracy);
}

function parityTable(manifest) {
  const total = manifest.metrics?.n;
  const columns = ["file", "precision", "size", "agreement", "correct", "largest difference"];
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Files of ${manifest.name}/${manifest.version}` },
    h("table", {},
      h("caption", {}, "Exported files, compared with the trained network"),
      h("thead", {}, h("tr", {}, ...columns.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, ...manifest.artifacts.map(({ file, precision, bytes, parity = {} }) => h("tr", {},
        h("th", { scope: "row" }, file), h("td", {}, precision), h("td", {}, `${(bytes / 1e6).toFixed(1)} MB`),
        h("td", {}, parity.agreement === undefined ? "–" : percent(parity.agreement)),
        h("td", {}, parity.correct === undefined ? "–" : `${count(parity.correct)}${total ? ` of ${count(total)}` : ""}`),
        h("td", {}, parity.max_abs_diff === undefined ? "–" : parity.max_abs_diff.toExponential(1)))))));
}

function reportLink(model) {
  const path = `/v1/${model.name}/report`;
  if (!hasToken()) return h("p", {}, h("a", { href: path, target: "_blank", rel: "noopener" }, "Report of the training"));
  const save = async () => { // a link cannot carry the token
    const url = URL.createObjectURL(await (await request(path)).blob());
    h("a", { href: url, download: `${shortName(model.name).replace("/", "-")}-report.html` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  };
  return h("p", {}, h("button", { type: "button", onclick: save }, "Download the report of the training"));
}
