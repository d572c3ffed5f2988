// A line over time, as a picture and as a table of the same numbers.

import { h, svg, number, table } from "/console/dom.js";

const [WIDEST, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [720, 170, 92, 12, 12, 26];
const DAY = 86_400_000;

// `samples`: [{ at: milliseconds, value: number or null }], oldest first, each over so many seconds; what is not known is a gap, not a
// zero, and a value between two gaps a point.
export function chart(title, unit, samples, seconds = 1) {
  const values = samples.map((one) => one.value).filter((value) => value !== null);
  const figure = h("figure", null, h("figcaption", null, `${title} (${unit})`));
  if (values.length === 0) {
    figure.append(h("p", { class: "muted" }, "Not known: no observation has had it."));
    return figure;
  }
  const long = samples.at(-1).at - samples[0].at > DAY / 4;
  const clock = (at) => new Date(at).toISOString().slice(long ? 5 : 11, long ? 16 : 19).replace("T", " ");
  const width = Math.max(280, Math.min(WIDEST, document.documentElement.clientWidth - 24)); // its text is not scaled down
  const least = Math.min(0, ...values);
  const most = Math.max(1, ...values);
  const [from, until] = [samples[0].at, Math.max(samples.at(-1).at, samples[0].at + 10_000)];
  const x = (at) => LEFT + ((width - LEFT - RIGHT) * (at - from)) / (until - from);
  const y = (value) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * (value - least)) / (most - least);
  let path = "";
  let pen = "M";
  for (const { at, value } of samples) {
    if (value === null) { pen = "M"; continue; }
    path += `${pen}${x(at).toFixed(1)} ${y(value).toFixed(1)}${pen === "M" ? "h.01" : ""}`;
    pen = "L";
  }
  const last = samples.findLast((one) => one.value !== null);
  const label = `${title}: last ${number(last.value)} ${unit}, least ${number(Math.min(...values))}, greatest ${number(Math.max(...values))}`;
  figure.append(
    svg("svg", { class: "chart", viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label },
      (most - least > 1 ? [least, (least + most) / 2, most] : [least, most]).map((value) => [
        svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
        svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, number(Math.round(value))),
      ]),
      svg("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: y(least), y2: y(least) }),
      svg("path", { class: "line", d: path }),
      svg("circle", { class: "point", r: 3.5, cx: x(last.at), cy: y(last.value) }),
      svg("text", { x: LEFT, y: HEIGHT - 6 }, clock(from)),
      svg("text", { x: width - RIGHT, y: HEIGHT - 6, "text-anchor": "end" }, `${clock(samples.at(-1).at)} UTC`)),
    h("details", null, h("summary", null, `${title} as a table`),
      table(`${title}, newest first`, [
        ["Time (UTC)", (one) => `${clock(one.at)}${seconds > 1 ? ` and ${number(seconds)} s` : ""}`],
        [unit, (one) => (one.value === null ? "not known" : number(one.value)), "number"],
      ], samples.slice(-60).reverse())));
  return figure;
}
