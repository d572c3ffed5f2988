// What lists have in common: sizes, times with their zone, and the way to the next page.

import { h, link, note, number } from "/console/dom.js";

const UNITS = ["bytes", "kB", "MB", "GB", "TB"];

export function size(bytes) {
  if (bytes === null || bytes === undefined) return "not known";
  let [value, unit] = [bytes, 0];
  while (value >= 1000 && unit < UNITS.length - 1) { value /= 1000; unit += 1; }
  return `${unit ? value.toFixed(1) : number(value)} ${UNITS[unit]}`;
}

// To the second; the whole of it stands in the tip.
export const time = (utc) => (utc ? h("time", { datetime: utc, title: utc }, utc.replace("T", " ").replace(/(\.\d+)?Z$/, "")) : h("span", { class: "muted" }, "not known"));
export const missing = (words) => h("span", { class: "muted" }, words);

// A digest as a link that wraps nowhere; whoever listens hears the word and its beginning.
export const digestLink = (parts, digest, word) =>
  link(parts, h("code", { title: digest }, digest.slice(0, 12)), { "aria-label": `${word} ${digest.slice(0, 12)}` });

export const more = (page, cursor, words) => (cursor ? h("p", null, link([page, cursor], words)) : null);
export const problems = (list) => (list.length ? note("bad", ...list) : null);
export const share = (part, whole) => (whole ? `${(100 * part / whole).toFixed(part && part !== whole ? 3 : 0)} %` : "nothing compared");
