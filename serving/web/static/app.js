// The pages: one section each, chosen by the address behind the #.

import { json } from "./api.js";
import * as compare from "./compare.js";
import { byId } from "./dom.js";
import * as models from "./models.js";
import * as trying from "./try.js";
import * as watch from "./watch.js";

const PAGES = { try: trying, watch, compare, models };
let current = "";

function show() {
  const name = location.hash.slice(1) in PAGES ? location.hash.slice(1) : "try";
  if (name === current) return;
  PAGES[current]?.leave();
  current = name;
  for (const each of Object.keys(PAGES)) byId(each).hidden = each !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${byId(`${name}-title`).textContent} – pawserve`;
  PAGES[name].enter(listModels);
}

/** The versions that the server lists. */
async function listModels() {
  return (await json("/v1/models")).models;
}

trying.start();
window.addEventListener("hashchange", show);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the page
  byId("main").focus();
});
show();
