// Classify images, and label the predictions.

import { json } from "./api.js";
import { byId, h, percent, setOptions, shortName } from "./dom.js";
import { choose, undo } from "./labels.js";

const AT_ONCE = 4;
const MOST_BUTTONS = 9; // classes that have a button and a key; more are in a list
const SHOWN = 5;
const FINISHED = ".labelled, .failed"; // cards that need no label
const IMAGE = /\.(jpe?g|jfif|png|webp|gif|bmp|tiff?|heic|heif|avif|mpo)$/i;
let classes = new Map(); // resource name -> class names
let queue = [];
let running = 0;
let progress = noProgress();

/** Listen to files that are dropped, pasted or chosen, and to keys. */
export function start() {
  for (const id of ["files", "camera"]) {
    byId(id).addEventListener("change", (event) => {
      add([...event.target.files]);
      event.target.value = ""; // the same file may be chosen again
    });
  }
  byId("camera-label").hidden = !matchMedia("(pointer: coarse)").matches;
  byId("clear").addEventListener("click", clear);
  document.addEventListener("paste", (event) => {
    if (!byId("try").hidden) add([...event.clipboardData.files]);
  });
  let depth = 0; // of the elements that files are dragged over
  document.addEventListener("dragenter", (event) => mark(event, (depth += 1)));
  document.addEventListener("dragleave", (event) => mark(event, (depth -= 1)));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(event, (depth = 0));
    location.hash = "#try";
    add([...event.dataTransfer.files]);
  });
  document.addEventListener("keydown", onKey);
}

/** Show the page; `listModels` resolves to the server's versions. */
export async function enter(listModels) {
  try {
    const models = (await listModels()).filter((each) => each.state === "MODEL_STATE_READY");
    classes = new Map(models.map((each) => [each.name, each.classes]));
    setOptions(byId("model"), models.map((each) => [each.name, shortName(each.name)]));
    const most = Math.max(1, ...models.map((each) => each.maxViews));
    for (const option of byId("views").options) option.disabled = most < (option.value === "adaptive" ? 2 : Number(option.value));
    if (!models.length) say("No version is ready: see Models for the reasons.");
  } catch (error) {
    say(error.message);
  }
}

/** Nothing has to end when another page is shown. */
export function leave() {}

function mark(event, depth) {
  byId("drop").classList.toggle("over", depth > 0);
}

function say(text) {
  byId("summary").textContent = text;
}

/** Of the images since the page was cleared; `ignored`: files and folders that are no images. */
function noProgress() {
  return { total: 0, done: 0, failed: 0, ignored: 0, cleared: new AbortController() };
}

function add(files) {
  const images = files.filter((file) => file.type.startsWith("image/") || IMAGE.test(file.name));
  const added = images.map(makeCard);
  byId("cards").append(...added.map((card) => card.element));
  queue.push(...added);
  const current = byId("cards").querySelector(".current"); // answers come in any order, labels go from the first image on
  if (added.length && (!current || current.matches(FINISHED))) setCurrent(added[0].element, false);
  progress.total += images.length;
  progress.ignored += files.length - images.length;
  byId("clear").hidden = !progress.total && !progress.ignored;
  byId("keys").hidden = !progress.total;
  showProgress();
  work();
}

function clear() {
  queue = [];
  progress.cleared.abort();
  progress = noProgress();
  for (const image of byId("cards").querySelectorAll("img")) URL.revokeObjectURL(image.src);
  byId("cards").replaceChildren();
  byId("clear").hidden = byId("keys").hidden = true;
  say("");
  showProgress();
}

function work() {
  while (running < AT_ONCE && queue.length) {
    running += 1;
    classify(queue.shift()).finally(() => {
      running -= 1;
      showProgress();
      work();
    });
  }
}

function showProgress() {
  const { total, done, failed, ignored } = progress;
  const bar = byId("progress");
  bar.hidden = done + failed >= total;
  bar.firstElementChild.value = total ? (done + failed) / total : 0;
  bar.lastElementChild.textContent = `${done + failed} of ${total}`;
  if (done + failed < total || !(total || ignored)) return;
  const classified = total ? `${done} ${done === 1 ? "image" : "images"} classified${failed ? `, ${failed} failed` : ""}. ` : "";
  say(classified + (ignored ? `Left out: ${ignored === 1 ? "1 file that is no image" : `${ignored} files that are no images`}.` : ""));
}

async function classify(card) {
  const mine = progress; // the page may be cleared meanwhile
  const views = byId("views").value;
  const query = new URLSearchParams();
  if (byId("model").value) query.set("model", byId("model").value);
  if (views === "adaptive") query.set("adaptive", "true");
  else query.set("views", views);
  const begin = performance.now();
  try {
    const form = new FormData(); // so that an image that cannot be read is a result, not a failed request
    form.append("file", card.file);
    const answer = await json(`/v1/classify?${query}`, { body: form, signal: mine.cleared.signal });
    const { prediction, error } = answer.results[0];
    if (error) throw Object.assign(new Error(error.message), { reason: error.details?.find((each) => each.reason)?.reason });
    card.show(answer.model, prediction, performance.now() - begin);
    mine.done += 1;
  } catch (error) {
    if (mine.cleared.signal.aborted) return;
    card.fail(error);
    mine.failed += 1;
  }
}

function makeCard(file) {
  const image = h("img", { alt: `Preview of ${file.name}`, loading: "lazy", decoding: "async" });
  const body = h("div", { class: "body" }, h("p", { class: "hint" }, "waiting…"));
  const element = h("li", { class: "card", tabindex: "-1" },
    h("div", { class: "preview" }, image), h("div", { class: "answer" }, h("h3", {}, file.name), body));
  image.addEventListener("error", () => image.replaceWith(h("p", { class: "hint" }, "no preview")), { once: true });
  image.src = URL.createObjectURL(file);
  element.addEventListener("focusin", () => setCurrent(element, false));
  element.addEventListener("click", () => setCurrent(element, false));
  return {
    file,
    element,
    show: (model, prediction, ms) => showPrediction(element, body, model, prediction, ms),
    fail: (error) => {
      element.classList.add("failed");
      if (element.matches(".current")) setCurrent(nextToLabel(element) || element, false);
      body.replaceChildren(h("p", { class: "error" }, error.message),
        error.reason ? h("p", { class: "hint" }, error.reason) : "");
    },
  };
}

function showPrediction(element, body, model, prediction, ms) {
  const views = prediction.views === 1 ? "1 view" : `${prediction.views} views`;
  const bars = prediction.classes.slice(0, SHOWN).map(({ label, probability }) =>
    h("div", { class: "bar", "--share": probability },
      h("span", { class: "name" }, label), h("span", { class: "value" }, percent(probability))));
  body.replaceChildren(
    h("div", { class: "bars" }, ...bars),
    h("p", { class: "hint" }, `${views} · ${Math.round(ms)} ms · ${shortName(model)}`),
    labelControls(element, model, prediction));
}

function labelControls(element, model, prediction) {
  const predicted = prediction.classes[0].label;
  const names = classes.get(model) || prediction.classes.map((each) => each.label).sort();
  const status = h("p", { class: "label-status", role: "status" });
  const group = h("div", { class: "choices" });
  let recorded = "";

  const pick = (label) => choose(prediction.token, label, onState);
  function onState(state, label, detail) {
    element.classList.toggle("labelled", state === "recorded" || state === "waiting" || state === "sending");
    const chosen = state === "undone" || state === "failed" ? recorded : label;
    for (const button of group.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.dataset.label === chosen));
    }
    if (state === "recorded") recorded = label;
    const text = {
      waiting: `${label}: not recorded yet. `,
      sending: `${label}: being recorded…`,
      recorded: `Recorded: ${label}${detail && detail !== label ? ` (was ${detail})` : ""}`,
      failed: `Not recorded: ${detail}`,
      undone: recorded ? `Recorded: ${recorded}` : "Not labelled.",
    }[state];
    status.classList.toggle("error", state === "failed");
    status.replaceChildren(text,
      state === "waiting" ? h("button", { type: "button", class: "link", onclick: () => undo(prediction.token) }, "Undo") : "");
  }
  const button = (label, key) => h("button", {
    type: "button", "data-label": label, "aria-pressed": "false", onclick: () => pick(label),
    class: label === predicted ? "predicted" : "",
  }, h("kbd", { "aria-hidden": "true" }, key), label === predicted ? `${label}, as predicted` : label);
  if (names.length <= MOST_BUTTONS) {
    group.append(...names.map((label, index) => button(label, index + 1)));
  } else {
    const select = h("select", { "aria-label": "The correct class" },
      h("option", { value: "" }, "another class…"), ...names.map((label) => h("option", { value: label }, label)));
    select.addEventListener("change", () => select.value && pick(select.value));
    group.append(button(predicted, 1), select);
  }
  return h("fieldset", { class: "labels" }, h("legend", {}, "What is it?"), group, status);
}

function setCurrent(element, focus = true) {
  for (const each of byId("cards").querySelectorAll(".current")) each.classList.remove("current");
  element.classList.add("current");
  if (focus) {
    element.focus({ preventScroll: true });
    element.scrollIntoView({ block: "nearest" });
  }
}

/** The first card after this one that has no label yet, else the first before it. */
function nextToLabel(element) {
  const cards = [...byId("cards").children];
  const at = cards.indexOf(element);
  return [...cards.slice(at + 1), ...cards.slice(0, at)].find((each) => !each.matches(FINISHED));
}

function onKey(event) {
  const inField = event.target.closest?.("input, select, textarea, dialog");
  if (byId("try").hidden || inField || event.ctrlKey || event.metaKey || event.altKey) return;
  const cards = [...byId("cards").children];
  const at = cards.findIndex((each) => each.classList.contains("current"));
  if (!cards.length) return;
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    setCurrent(cards[Math.max(0, Math.min(cards.length - 1, at + (event.key === "ArrowDown" ? 1 : -1)))]);
  } else if (event.key.toLowerCase() === "u") {
    undo();
  } else if (/^[1-9]$/.test(event.key) && at >= 0) {
    const button = cards[at].querySelectorAll(".choices button")[Number(event.key) - 1];
    if (!button) return;
    button.click();
    const next = nextToLabel(cards[at]);
    if (next) setCurrent(next);
  }
}
