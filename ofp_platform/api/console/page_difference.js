import { h, badge, empty, facts, number, table } from "/console/dom.js";
import { positions, shown, valuesOf } from "/console/values.js";
import { recordOf } from "/console/page_snapshot.js";

const byName = (hashed) => new Map([...valuesOf(hashed)].map((one) => [[one.key, one.group, one.feature].join(" "), one]));
const side = (one) => (one ? shown(one.value) : h("span", { class: "muted" }, "not asked for"));

function compared(left, right) {
  const [before, after] = [byName(left), byName(right)];
  const names = [...new Set([...before.keys(), ...after.keys()])];
  const differing = names.filter((name) => before.has(name) !== after.has(name) || JSON.stringify(before.get(name).value) !== JSON.stringify(after.get(name).value));
  const both = (name, of) => [name, of(left), of(right), of(left) === of(right)];
  const conditions = [
    both("As of (UTC)", (one) => one.as_of_time_utc),
    both("Basis", (one) => positions(one.input_basis)),
    both("Definitions", (one) => one.registry_digest.slice(0, 12)),
    both("Run", (one) => one.context_pins.run_id),
  ];
  return [
    h("h2", null, "Made under"),
    table("Question and basis", [["", (row) => row[0]], ["First", (row) => h("code", null, row[1])], ["Second", (row) => h("code", null, row[2])], ["", (row) => badge(row[3] ? "same" : "differs", row[3] ? "plain" : "warn")]], conditions),
    h("h2", null, "Values"),
    facts([["Same", number(names.length - differing.length)], ["Different", number(differing.length)]]),
    differing.length
      ? table("Values that differ", [
          ["Feature", (name) => (before.get(name) ?? after.get(name)).feature],
          ["First", (name) => side(before.get(name))],
          ["Second", (name) => side(after.get(name))],
          ["Key", (name) => h("code", null, (before.get(name) ?? after.get(name)).key)],
          ["Group", (name) => h("code", null, (before.get(name) ?? after.get(name)).group)],
        ], differing)
      : empty("No value differs."),
  ];
}

export async function differencePage([first = "", second = ""], { signal }) {
  const input = (value) => h("input", { required: true, pattern: "[0-9a-f]{64}", autocomplete: "off", spellcheck: "false", value });
  const [left, right] = [input(first), input(second)];
  const form = h("form", { onsubmit: (event) => { event.preventDefault(); location.hash = `#/difference/${left.value}/${right.value}`; } },
    h("label", null, "First snapshot (hash)", left),
    h("label", null, "Second snapshot (hash)", right),
    h("div", { class: "row" }, h("button", { type: "submit", class: "first" }, "Compare")));
  if (!first || !second) return [form];
  const records = await Promise.all([first, second].map((hash) => recordOf(hash, signal)));
  return [form, compared(...records.map((one) => one.hashed))];
}
