// Elements. Text is always set as text: nothing that a server or a file name says becomes markup.

const SVG = "http://www.w3.org/2000/svg";

/** The element with an ID. */
export const byId = (id) => document.getElementById(id);

/** An element with properties and children; strings become text, null and false are left out. */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** An SVG element. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((each) => each !== null && each !== undefined && each !== false));
  return element;
}

/** A table that scrolls on narrow screens. Each row begins with its name; cells are elements or texts. */
export function table(label, caption, columns, rows, kind = null) {
  const head = (name) => (name ? h("th", { scope: "col" }, name) : h("td"));
  const cell = (value) => (value instanceof Element ? value : h("td", {}, value));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
    h("table", { class: kind },
      h("caption", {}, caption),
      h("thead", {}, h("tr", {}, ...columns.map(head))),
      h("tbody", {}, ...rows.map(([name, ...cells]) => h("tr", {}, h("th", { scope: "row" }, name), ...cells.map(cell))))));
}

/** A figure with its name above and a note below. */
export const tile = (name, value, note) =>
  h("div", {}, h("dt", {}, name), h("dd", { class: "big" }, value), h("dd", { class: "hint" }, note));

/** A fraction as a percentage. */
export const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)}%`;

/** A rate of the API with its 95% interval. */
export const rateText = (rate) => `${percent(rate.value)} (${percent(rate.lower)} to ${percent(rate.upper)})`;

/** A whole number, which protobuf's JSON writes as text if it has 64 bits. */
export const count = (value) => Number(value).toLocaleString("en-US");

/** NAME/VERSION of a resource name. */
export const shortName = (resource) => resource.replace("models/", "").replace("/versions/", "/");

/** Replace the options of a select element, and keep the choice if it is still there. */
export function setOptions(select, options) {
  const same = select.options.length === options.length &&
    options.every(([value, text], index) => select.options[index].value === value && select.options[index].text === text);
  if (same) return;
  const chosen = select.value;
  select.replaceChildren(...options.map(([value, text]) => h("option", { value }, text)));
  if (options.some(([value]) => value === chosen)) select.value = chosen;
}

/** Replace what an element holds; regions with the same label stay scrolled and focused as they were. */
export function replace(root, ...children) {
  const regions = () => root.querySelectorAll("[role=region]");
  const before = new Map([...regions()].map((each) =>
    [each.getAttribute("aria-label"), { left: each.scrollLeft, top: each.scrollTop, focused: each === document.activeElement }]));
  root.replaceChildren(...children);
  for (const region of regions()) {
    const { left, top, focused } = before.get(region.getAttribute("aria-label")) || {};
    if (focused) region.focus({ preventScroll: true });
    if (left || top) region.scrollTo({ left, top, behavior: "instant" });
  }
}
