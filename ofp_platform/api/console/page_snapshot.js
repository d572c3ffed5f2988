import { h, empty, facts, link, note, short } from "/console/dom.js";
import { ask } from "/console/api.js";
import { positions, valuesTable } from "/console/values.js";

const answers = new Map(); // what this tab was answered, newest last

export function remember(answer) {
  const hash = answer.provenance.feature_snapshot_hash;
  answers.delete(hash);
  answers.set(hash, answer);
  if (answers.size > 50) answers.delete(answers.keys().next().value);
}

export async function recordOf(hash, signal) {
  try {
    return { hashed: (await ask(`/v0/snapshots/${encodeURIComponent(hash)}`, { signal })).hashed, kept: true };
  } catch (error) {
    const answer = answers.get(hash);
    if (error.reason !== "UNKNOWN_SNAPSHOT" || !answer) throw error;
    const { context_pins, requested, input_basis, feature_definition_set } = answer.provenance;
    return { hashed: { context_pins, as_of_time_utc: requested.as_of_time_utc, input_basis, registry_digest: feature_definition_set.digest, values: answer.snapshot.by_key }, kept: false };
  }
}

export async function snapshotPage([hash = ""], { signal }) {
  const { hashed, kept } = await recordOf(hash, signal);
  const warnings = answers.get(hash)?.provenance.warnings ?? [];
  return [
    facts([
      ["Hash", h("code", null, hash)],
      ["As of (UTC)", hashed.as_of_time_utc],
      ["Basis", h("code", null, positions(hashed.input_basis))],
      ["Definitions", short(hashed.registry_digest)],
      ["Run", hashed.context_pins.run_id],
    ]),
    kept ? null : note("warn", "This service does not keep what it serves: the snapshot is shown from the answer, and its events cannot be listed."),
    warnings.length ? note("warn", ...warnings.map((one) => `${one.code}: ${one.key_type}:${one.key_id} ${one.group_name}${one.feature ? ` ${one.feature}` : ""}`)) : null,
    valuesTable(hash, hashed),
    h("p", null, link(["difference", hash], "Compare with another snapshot")),
  ];
}

export function snapshotsPage() {
  const input = h("input", { required: true, pattern: "[0-9a-f]{64}", autocomplete: "off", spellcheck: "false", "aria-describedby": "hash-hint" });
  const hashes = [...answers.keys()].reverse();
  return [
    h("form", { onsubmit: (event) => { event.preventDefault(); location.hash = `#/snapshot/${input.value}`; } },
      h("label", null, "Snapshot hash", input, h("span", { class: "hint", id: "hash-hint" }, "64 hex digits, as in feature_snapshot_hash of an answer or a decision.")),
      h("div", { class: "row" }, h("button", { type: "submit", class: "first" }, "Show"))),
    h("h2", null, "Asked for in this tab"),
    hashes.length
      ? h("ul", null, hashes.map((hash) => h("li", null, link(["snapshot", hash], h("code", null, hash)), ` as of ${answers.get(hash).snapshot.as_of_time_utc}`)))
      : empty("Nothing yet.", h("p", null, link(["features"], "Ask for an entity at a time"))),
  ];
}
