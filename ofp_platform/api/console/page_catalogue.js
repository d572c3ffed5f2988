import { h, empty, facts, note, number, table } from "/console/dom.js";
import { ask } from "/console/api.js";

function operand(one) {
  const where = Object.entries(one.where).map(([field, values]) => `${field} one of ${values.join(", ")}`);
  const time = one.window ? ` in ${one.window}${one.delay === "0s" ? "" : `, ${one.delay} ago`}` : "";
  return `${one.aggregation}${one.value ? ` of ${one.value}` : ""} over ${one.events.join(", ")}${where.length ? ` where ${where.join(" and ")}` : ""}${time}`;
}

function definition(feature) {
  if (feature.expression) return feature.expression;
  if (!feature.definition) return "not described";
  return feature.denominator ? `${operand(feature.definition)}, divided by ${operand(feature.denominator)}` : operand(feature.definition);
}

function groupOf(group, readersKnown) {
  const readers = group.read_by.map((one) => `${one.kind.replaceAll("_", " ")} ${one.name}`);
  return h("section", null,
    h("h2", null, `${group.group_name}:${group.group_version}`),
    group.description ? h("p", null, group.description) : null,
    facts([
      ["Of the", group.key_type],
      ["Owner", group.owner || "nobody is named"],
      ["Tags", group.tags.join(", ") || "none"],
      ["Stale after", `${number(group.ttl_seconds)} s`],
      ["Read by", readersKnown ? readers.join(", ") || "nobody that is recorded" : "not looked at: more is published than is looked at in one go"],
    ]),
    table(`Features of ${group.group_name}:${group.group_version}`, [
      ["Feature", (one) => h("code", null, one.name)],
      ["Type", (one) => one.type],
      ["Definition", (one) => definition(one), "wide"],
      ["In words", (one) => one.description || h("span", { class: "muted" }, "none"), "wide"],
    ], group.features));
}

export async function cataloguePage(_rest, { signal }) {
  const catalogue = await ask("/v0/catalogue", { signal });
  const set = catalogue.feature_definition_set;
  const shownGroups = h("div", null);
  const draw = (word) => {
    const fits = catalogue.groups.filter((group) => JSON.stringify(group).toLowerCase().includes(word.toLowerCase()));
    shownGroups.replaceChildren(...(fits.length ? fits.map((group) => groupOf(group, catalogue.readers_known)) : [empty("No group has this text in its definition.")]));
  };
  draw("");
  return [
    facts([["Pack", `${set.pack_id}, revision ${set.revision}`], ["Digest", h("code", null, set.digest)], ["Groups", number(catalogue.groups.length)]]),
    catalogue.pack_description ? note("plain", catalogue.pack_description) : null,
    h("form", { role: "search", onsubmit: (event) => event.preventDefault() }, h("label", null, "Search in definitions", h("input", { type: "search", oninput: (event) => draw(event.target.value) }))),
    shownGroups,
  ];
}
