// Elements from data. Text is only ever set as text: whatever a name, a reason or a label holds, it is shown and never parsed.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

export const text = (value) => (value === null || value === undefined ? "none" : String(value));
export const number = (value) => (typeof value === "number" ? value.toLocaleString("en-GB") : text(value));
export const short = (digest) => h("code", { title: digest }, String(digest).slice(0, 12));
export const link = (parts, label, attributes) =>
  h("a", { href: "#/" + parts.map((part) => encodeURIComponent(part)).join("/"), ...attributes }, label);

const TONES = { GREEN: "good", DONE: "good", MATCH: "good", AMBER: "warn", RED: "bad", FAILED: "bad", MISMATCH: "bad" };
export const badge = (word, tone) => h("span", { class: `badge ${tone ?? TONES[word] ?? "plain"}` }, word);

export function facts(pairs) {
  return h("dl", { class: "facts" }, pairs.map(([name, value]) => [h("dt", null, name), h("dd", null, value ?? "none")]));
}

// `columns`: [heading, cell of a row, class]; the first column heads its row.
export function table(caption, columns, rows) {
  const cells = (row) =>
    columns.map(([, cell, style], place) => h(place ? "td" : "th", { class: style, scope: place ? null : "row" }, cell(row)));
  return h("div", { class: "framed" },
    h("p", { class: "caption", "aria-hidden": "true" }, caption), // outside of what scrolls; the table has it as its name
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, h("table", { "aria-label": caption },
      h("thead", null, h("tr", null, columns.map(([heading, , style]) => h("th", { scope: "col", class: style }, heading)))),
      h("tbody", null, rows.map((row) => h("tr", null, cells(row)))))));
}

export const note = (tone, ...children) => h("div", { class: `note ${tone}` }, children.map((one) => (typeof one === "string" ? h("p", null, one) : one)));
export const empty = (...words) => note("empty", ...words);
