// Pages that are read anew every few seconds.

import { byId, h, replace } from "./dom.js";

const POLL_MS = 5000;

/**
 * Keep what an element holds up to date, between `enter` and `leave`; `update` does not wait for the next time.
 *
 * @param read called with the argument of `enter`; resolves to a text that changes when anything does, and the children
 */
export function follow(id, read) {
  let round = null; // of the page that is shown
  let shown = "";
  let update = () => {};

  function draw([text, ...children]) {
    if (text === shown) return; // what a person reads or selects stays
    shown = text;
    replace(byId(id), ...children);
  }

  function leave() {
    round = null;
    update();
  }

  async function enter(argument) {
    leave();
    const mine = {};
    round = mine;
    shown = "";
    while (round === mine) {
      const found = await read(argument).catch((error) => [error.message, h("p", { class: "error", role: "alert" }, error.message)]);
      if (round === mine) draw(found);
      await new Promise((resolve) => {
        update = resolve;
        setTimeout(resolve, POLL_MS);
      });
    }
  }

  return { enter, leave, update: () => update() };
}
