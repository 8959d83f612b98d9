// The confusion matrix and the calibration diagram.

import { count, h, percent, svg, table } from "./dom.js";

const MOST_CLASSES = 40; // with more, the table would be unreadable: the largest confusions are listed
const MOST_LISTED = 30;
const SIDE = 320;
const MARGIN = 56; // left and below
const END = 20; // right and above: half of the last label

/** The confusion matrix of a version: counts, and their shares of the row. */
export function confusionTable(model) {
  const names = model.classes;
  const rows = model.confusionMatrix.map((row) => row.predicted.map(Number));
  if (names.length > MOST_CLASSES) return confusionList(names, rows);
  const caption = "Confusion matrix: predictions in columns, labels in rows, share of the row below each count";
  return table("Confusion matrix", caption, ["label ↓ predicted →", ...names], rows.map((row, actual) => {
    const sum = row.reduce((total, each) => total + each, 0);
    return [names[actual], ...row.map((each, predicted) => {
      const share = sum ? each / sum : 0;
      const kind = each === 0 ? "none" : predicted === actual ? "correct" : "incorrect";
      return h("td", { class: `${kind}${share > 0.3 ? " strong" : ""}`, "--share": Math.sqrt(share) },
        count(each), h("small", {}, sum ? percent(share) : "–"));
    })];
  }), "confusion");
}

function confusionList(names, rows) {
  const pairs = rows.flatMap((row, actual) => row.map((each, predicted) => [each, actual, predicted]))
    .filter(([each, actual, predicted]) => each && actual !== predicted)
    .sort((one, other) => other[0] - one[0]).slice(0, MOST_LISTED);
  return table("Largest confusions", `The most frequent confusions of ${count(names.length)} classes`, ["label", "predicted", "images"],
    pairs.map(([each, actual, predicted]) => [names[actual], names[predicted], count(each)]));
}

/** Accuracy against confidence: on the diagonal, the probabilities are calibrated. */
export function calibrationDiagram(model) {
  const bins = model.calibrationBins.filter((each) => each.accuracy && each.meanProbability !== undefined);
  const most = Math.max(1, ...bins.map((each) => Number(each.accuracy.count)));
  const x = (value) => MARGIN + value * (SIDE - MARGIN - END);
  const y = (value) => SIDE - MARGIN - value * (SIDE - MARGIN - END);
  const ticks = [0, 0.25, 0.5, 0.75, 1];
  const text = bins.map((each) =>
    `${percent(each.meanProbability)} predicted, ${percent(each.accuracy.value)} correct, ${count(each.accuracy.count)} images`).join("; ");
  const figure = svg("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, class: "calibration", role: "img", "aria-label": `Calibration: ${text}` },
    ...ticks.flatMap((each) => [
      svg("line", { x1: x(0), x2: x(1), y1: y(each), y2: y(each), class: "grid" }),
      svg("line", { x1: x(each), x2: x(each), y1: y(0), y2: y(1), class: "grid" }),
      svg("text", { x: x(each), y: y(0) + 16, "text-anchor": "middle" }, percent(each, 0)),
      svg("text", { x: x(0) - 6, y: y(each) + 4, "text-anchor": "end" }, percent(each, 0)),
    ]),
    svg("line", { x1: x(0), y1: y(0), x2: x(1), y2: y(1), class: "diagonal" }),
    ...bins.flatMap((each) => [
      svg("line", { x1: x(each.meanProbability), x2: x(each.meanProbability), y1: y(each.accuracy.lower), y2: y(each.accuracy.upper), class: "interval" }),
      svg("circle", { cx: x(each.meanProbability), cy: y(each.accuracy.value), r: 3 + 5 * Math.sqrt(Number(each.accuracy.count) / most), class: "point" }),
    ]),
    svg("text", { x: x(0.5), y: SIDE - 6, "text-anchor": "middle" }, "probability of the predicted class"),
    svg("text", { x: -y(0.5), y: 12, "text-anchor": "middle", transform: "rotate(-90)" }, "accuracy"));
  return h("figure", {}, figure,
    h("figcaption", {}, "Calibration: points on the diagonal are perfectly calibrated; lines are 95% intervals, larger points have more images."));
}
