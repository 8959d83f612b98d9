// The statistics of a version, as they change.

import { events, json } from "./api.js";
import { calibrationDiagram, confusionTable } from "./charts.js";
import { byId, count, h, percent, rateText, replace, setOptions, shortName, table, tile } from "./dom.js";

const POLL_MS = 5000;
const RATE_MS = 15_000;
let running = null; // of the page that is shown
let latest = [];
let samples = []; // [time, predictions of all versions]

/** Show the page and follow the statistics. */
export function enter() {
  byId("watch-version").onchange = draw;
  byId("watch-window").onchange = restart;
  restart();
}

/** Stop following. */
export function leave() {
  running?.abort();
  running = null;
}

function restart() {
  leave();
  running = new AbortController();
  samples = [];
  follow(running.signal);
}

async function follow(signal) {
  while (!signal.aborted) {
    const seconds = Number(byId("watch-window").value);
    try {
      if (seconds) {
        const start = new Date(Date.now() - 1000 * seconds).toISOString();
        update((await json(`/v1/statistics?start_time=${encodeURIComponent(start)}`, { signal })).models);
        live(`every ${POLL_MS / 1000} s`);
        await sleep(POLL_MS, signal);
      } else {
        await events("/v1/statistics/watch?min_interval=1s", signal, (name, data) => {
          if (name === "error") throw new Error(data.detail);
          update(data.models);
          live("live");
        });
        live("connecting…");
        await sleep(500, signal); // the server ended the stream: it stops, or starts anew
      }
    } catch (error) {
      if (signal.aborted) return;
      live(error.message, true);
      await sleep(POLL_MS, signal);
    }
  }
}

function sleep(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

function live(text, isError = false) {
  byId("live").textContent = text;
  byId("live").classList.toggle("error", isError);
}

function update(models) {
  latest = models;
  const now = performance.now();
  samples.push([now, models.reduce((sum, each) => sum + Number(each.predictions), 0)]);
  while (samples.length > 2 && samples[0][0] < now - RATE_MS) samples.shift();
  setOptions(byId("watch-version"), models.map((each) => [each.model, shortName(each.model)]));
  draw();
}

function imagesPerSecond() {
  const [first, last] = [samples[0], samples.at(-1)];
  return samples.length < 2 ? 0 : Math.max(0, (last[1] - first[1]) / ((last[0] - first[0]) / 1000));
}

function draw() {
  const model = latest.find((each) => each.model === byId("watch-version").value) || latest[0];
  const root = byId("statistics");
  if (!model) {
    replace(root, h("p", { class: "notice" }, "There are no predictions yet. Classify images on the page Try."));
    return;
  }
  const tiles = [
    ["accuracy", model.accuracy ? percent(model.accuracy.value) : "–",
      model.accuracy ? `95% interval ${percent(model.accuracy.lower)} to ${percent(model.accuracy.upper)}` : "no labels yet"],
    ["labelled", count(model.labels), `of ${count(model.predictions)} predictions`],
    ["images a second", imagesPerSecond().toFixed(1), "in the last 15 s, all versions"],
  ];
  if (model.expectedCalibrationError !== undefined) {
    tiles.push(["calibration error", percent(model.expectedCalibrationError), "expected, 0% is perfect"]);
  }
  replace(root,
    h("dl", { class: "tiles" }, ...tiles.map((each) => tile(...each))),
    ...(Number(model.labels) ? [confusionTable(model), classTable(model), calibrationDiagram(model)]
      : [h("p", { class: "notice" }, "The confusion matrix appears with the first label.")]),
    ...driftView(model.drift));
}

/** The last predictions beside those on the validation images. */
function driftView(drift) {
  if (!drift) return [];
  if (drift.unavailable) return [h("p", { class: "hint" }, `Drift: ${drift.unavailable}.`)];
  const rows = drift.distributions.map((each) => {
    const known = each.pValue !== undefined;
    const most = [...each.bins].sort((one, other) => difference(other) - difference(one))[0];
    return [each.name, known ? each.stabilityIndex.toFixed(3) : "–", known ? each.pValue.toPrecision(2) : "–",
      h("td", { class: each.alarm ? "error" : "" }, !known ? "too few predictions" : !each.alarm ? "no alarm"
        : `differs: ${most.label} ${percent(most.share)} instead of ${percent(most.expected)}`)];
  });
  const caption = `Drift of the last ${count(drift.predictions)} predictions of the process that answers, from those `
    + `on ${count(drift.validationImages)} validation images`;
  return [table("Drift", caption, ["predicted", "PSI", "p", "result"], rows)];
}

function difference(bin) {
  return Math.abs(bin.share - bin.expected);
}

function classTable(model) {
  const text = (rate) => (rate ? rateText(rate) : "–");
  return table("Precision and recall", "Precision and recall by class, with 95% intervals", ["class", "precision", "recall", "F1"],
    model.classStatistics.map((each) =>
      [each.label, text(each.precision), text(each.recall), each.f1 === undefined ? "–" : each.f1.toFixed(3)]));
}
