// Two versions of a model compared by their labels.

import { json } from "./api.js";
import { byId, count, h, percent, setOptions, shortName, table, tile } from "./dom.js";
import { follow } from "./follow.js";

const MOST_LISTED = 20;
const page = follow("comparison", async (listModels) => {
  offer(await listModels());
  const [first, second] = ["compare-first", "compare-second"].map((id) => byId(id).value);
  if (!first || first === second || first.split("/")[1] !== second.split("/")[1]) {
    return ["choose", h("p", { class: "notice" }, "Choose two versions of one model.")];
  }
  const found = await json(`/v1/comparison?${new URLSearchParams({ first, second })}`);
  return [JSON.stringify(found), ...parts(found)];
});

/** Show the page, and keep it up to date. */
export function enter(listModels) {
  for (const id of ["compare-first", "compare-second"]) byId(id).onchange = page.update;
  page.enter(listModels);
}

/** Stop following. */
export const leave = page.leave;

/** Offer the versions; at first, the one that answers and its shadow, or the newest other one. */
function offer(models) {
  const [first, second] = ["compare-first", "compare-second"].map(byId);
  const fresh = !first.options.length;
  for (const select of [first, second]) setOptions(select, models.map((each) => [each.name, shortName(each.name)]));
  if (!fresh || models.length < 2) return;
  const sameModel = (one, other) => one.name.split("/")[1] === other.name.split("/")[1] && one !== other;
  const shadow = models.find((each) => each.shadowShare !== undefined && models.some((other) => sameModel(each, other)));
  const [other] = models.filter((each) => models.some((one) => sameModel(one, each)) && !each.primary).slice(-1);
  const chosen = shadow || other;
  if (!chosen) return;
  second.value = chosen.name;
  const against = models.filter((each) => sameModel(each, chosen));
  first.value = (against.find((each) => each.primary) || against.at(-1)).name;
}

function parts(found) {
  const names = [shortName(found.first), shortName(found.second)];
  const accuracy = (name, rate) => tile(name, rate ? percent(rate.value) : "–",
    rate ? `accuracy, 95% interval ${percent(rate.lower)} to ${percent(rate.upper)}, ${count(rate.count)} images` : "no labels yet");
  const { difference, sequentialTest: test } = found;
  return [
    ...found.warnings.map((text) => h("p", { class: "notice" }, `Warning: ${text}.`)),
    test ? h("p", { class: "verdict" }, h("strong", {}, verdict(found, names))) : "",
    h("dl", { class: "tiles" },
      accuracy(names[0], found.firstAccuracy), accuracy(names[1], found.secondAccuracy),
      difference ? tile("difference", signed(difference.value), `${names[1]} minus ${names[0]}, 95% interval ${signed(difference.lower)} to ${signed(difference.upper)}`) : "",
      test ? tile("evidence", evidence(test.eValue), `e-value, ${test.threshold} decides`) : ""),
    test ? explanation(found) : "",
    found.pairs ? pairTable(found.pairs, names)
      : found.pValue === undefined ? "" : h("p", { class: "hint" }, `Fisher's exact test: p = ${found.pValue.toPrecision(2)}, for one test at a time chosen beforehand.`),
    found.classDifferences.length ? classTable(found.classDifferences, names) : "",
  ];
}

function verdict({ sequentialTest: test, pairs }, names) {
  if (test.verdict === "COMPARISON_VERDICT_FIRST_IS_BETTER") return `${names[0]} is better.`;
  if (test.verdict === "COMPARISON_VERDICT_SECOND_IS_BETTER") return `${names[1]} is better.`;
  if (test.labelsNeeded === undefined) return "Not decided: the versions do not differ so far.";
  const images = ["bothCorrect", "onlyFirstCorrect", "onlySecondCorrect", "bothIncorrect"].reduce((sum, each) => sum + Number(pairs[each]), 0);
  const more = Math.max(1, Number(test.labelsNeeded) - images);
  return `Not decided. If the versions continue to differ as they do now, ${count(more)} more labels decide.`;
}

function explanation({ sequentialTest: test, pValue }) {
  const wrong = percent(1 / test.threshold, 0);
  return h("p", { class: "hint" },
    `The evidence is valid at any time: between equally accurate versions it ever reaches ${test.threshold} in at most ${wrong} of all comparisons. `,
    `McNemar's exact test: p = ${pValue.toPrecision(2)}, for one test at a time chosen beforehand.`);
}

function pairTable(pairs, names) {
  const caption = "Images that both versions classified; those that only one classifies correctly tell them apart";
  return table("Images by correct versions", caption, ["", `${names[1]} correct`, `${names[1]} incorrect`], [
    [`${names[0]} correct`, count(pairs.bothCorrect), count(pairs.onlyFirstCorrect)],
    [`${names[0]} incorrect`, count(pairs.onlySecondCorrect), count(pairs.bothIncorrect)],
  ]);
}

function classTable(classes, names) {
  const hidden = classes.length - MOST_LISTED;
  const caption = `Recall by class, the largest differences first${hidden > 0 ? `; ${count(hidden)} more classes differ less` : ""}`;
  return table("Recall by class", caption, ["class", ...names, "difference (95% interval)", "images"],
    classes.slice(0, MOST_LISTED).map(({ label, first, second, difference }) => [
      label, percent(first.value), percent(second.value),
      `${signed(difference.value)} (${signed(difference.lower)} to ${signed(difference.upper)})`,
      [...new Set([first.count, second.count])].map(count).join(", "),
    ]));
}

const signed = (value) => `${value >= 0 ? "+" : "−"}${percent(Math.abs(value))}`;
const evidence = (value) => (value < 1e4 ? value.toFixed(value < 100 ? 1 : 0) : value.toExponential(0).replace("e+", "·10^"));
