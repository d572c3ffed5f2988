// The values of a snapshot: by key, group and feature.

import { h, link, table, text } from "/console/dom.js";

export function* valuesOf(hashed) {
  for (const ofKey of hashed.values) {
    for (const ofGroup of ofKey.by_group) {
      for (const [feature, value] of Object.entries(ofGroup.features)) {
        yield { key: `${ofKey.key_type}:${ofKey.key_id}`, group: `${ofGroup.group_name}:${ofGroup.group_version}`, feature, value };
      }
    }
  }
}

export const shown = (value) => (value === null ? h("span", { class: "muted" }, "null (empty window)") : h("code", null, JSON.stringify(value)));

export function valuesTable(hash, hashed) {
  const rows = [...valuesOf(hashed)];
  return table("Values; each leads to its events", [
    ["Feature", (row) => row.feature],
    ["Value", (row) => shown(row.value)],
    ["Events", (row) => link(["events", hash, row.key, row.group, row.feature], "Events", { "aria-label": `Events behind ${row.feature} of ${row.key}, ${row.group}` })],
    ["Key", (row) => h("code", null, row.key)],
    ["Group", (row) => h("code", null, row.group)],
  ], rows);
}

export const positions = (basis) => (basis?.partitions ?? []).map((one) => `${one.partition_id}: ${text(one.offset)}`).join(", ") || "nothing";
