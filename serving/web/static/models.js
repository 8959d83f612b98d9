// The versions: state, engine, and the figures of training and export.

import { hasToken, request } from "./api.js";
import { count, h, percent, rateText, shortName, table } from "./dom.js";
import { follow } from "./follow.js";

const STATES = {
  MODEL_STATE_LOADING: "loading", MODEL_STATE_READY: "ready", MODEL_STATE_DRAINING: "draining", MODEL_STATE_REFUSED: "failed",
};
const manifests = new Map(); // resource name -> manifest, which does not change

/** Show the page, and keep it up to date. */
export const { enter, leave } = follow("versions", async (listModels) => {
  const models = await listModels();
  const found = await Promise.all(models.map(async (model) => [model, await manifestOf(model)]));
  return [JSON.stringify(found), ...(found.length ? found.map(([model, manifest]) => version(model, manifest))
    : [h("p", { class: "notice" }, "There are no models.")])];
});

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
  return table(`Files of ${manifest.name}/${manifest.version}`, "Exported files, compared with the trained network",
    ["file", "precision", "size", "agreement", "correct", "largest difference"],
    manifest.artifacts.map(({ file, precision, bytes, parity = {} }) => [
      file, precision, `${(bytes / 1e6).toFixed(1)} MB`,
      parity.agreement === undefined ? "–" : percent(parity.agreement),
      parity.correct === undefined ? "–" : `${count(parity.correct)}${total ? ` of ${count(total)}` : ""}`,
      parity.max_abs_diff === undefined ? "–" : parity.max_abs_diff.toExponential(1),
    ]));
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
