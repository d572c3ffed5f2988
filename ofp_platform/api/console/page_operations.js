import { h, badge, empty, number, short, table } from "/console/dom.js";
import { ask, query } from "/console/api.js";
import { missing, more, time } from "/console/lists.js";

const TONES = { begun: "plain", switched: "good", refused: "bad", rolled_back: "warn" };

export async function operationsPage([cursor], { signal }) {
  const page = await ask("/v0/pack_operations" + query({ limit: 20, cursor }), { signal });
  if (page.steps.length === 0) {
    return empty("No operation put a pack live beside another one here.", "ofp plan PACK says what a pack would change; ofp apply PACK does it, and every step of it stands here.");
  }
  return [
    table("Steps, the newest first; times in UTC", [
      ["At (UTC)", (one) => time(one.at_utc)],
      ["Step", (one) => badge(one.step.replaceAll("_", " "), TONES[one.step])],
      ["Operation", (one) => short(one.operation_id)],
      ["Plan", (one) => short(one.plan_digest)],
      ["From", (one) => h("span", null, `projection ${number(one.from_projection)} `, short(one.from_registry))],
      ["To", (one) => h("span", null, `projection ${number(one.to_projection)} `, short(one.to_registry))],
      ["Who", (one) => one.actor],
      ["Why", (one) => one.reason, "wide"],
      ["Compared", (one) => (one.served_hash ? h("span", null, `${number(one.compared_groups)} groups of ${number(one.compared_keys)} keys, equal: `, short(one.served_hash)) : missing("nothing in this step"))],
      ["Folded", (one) => (one.records ? `${number(one.records)} records in ${number(one.milliseconds)} ms` : missing("nothing in this step"))],
      ["Kept until (UTC)", (one) => (one.kept_until_utc ? time(one.kept_until_utc) : missing("none"))],
      ["Refusal", (one) => one.refusal ?? missing("none"), "wide"],
    ], page.steps),
    more("operations", page.next_cursor, "Earlier steps"),
  ];
}
