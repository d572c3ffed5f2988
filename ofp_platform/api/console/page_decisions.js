import { h, badge, empty, facts, link, short, table } from "/console/dom.js";
import { ask, query } from "/console/api.js";
import { time } from "/console/lists.js";
import { recordOf } from "/console/page_snapshot.js";
import { positions, valuesTable } from "/console/values.js";

const tone = { approve: "plain", decline: "bad", review: "warn" };

export async function decisionsPage([cursor], { signal }) {
  const page = await ask("/v0/decisions" + query({ limit: 50, cursor }), { signal });
  if (page.decisions.length === 0) {
    return empty("No decision is recorded of this run.", "ofp decide records some; a decision service sends its own to POST /v0/decisions.");
  }
  return [
    table("Decisions, the latest decided first; times in UTC", [
      ["Decision", (one) => link(["decision", one.decision_id], short(one.decision_id), { "aria-label": `Decision ${one.decision_id.slice(0, 12)} on ${one.event_id}` })],
      ["Outcome", (one) => badge(one.outcome, tone[one.outcome])],
      ["Decided (UTC)", (one) => time(one.decided_at_utc)],
      ["As of (UTC)", (one) => time(one.as_of_time_utc)],
      ["Rule", (one) => `${one.rule.rule_name}:${one.rule.rule_version}`],
      ["Keys", (one) => h("code", null, one.feature_keys.map((key) => `${key.key_type}:${key.key_id}`).join(", ")), "wide"],
    ], page.decisions),
    page.next_cursor ? h("p", null, link(["decisions", page.next_cursor], "Earlier decisions")) : null,
  ];
}

export async function decisionPage([id = ""], { signal }) {
  const decision = await ask(`/v0/decisions/${encodeURIComponent(id)}`, { signal });
  const hash = decision.feature_snapshot_hash;
  const { hashed } = await recordOf(hash, signal);
  const event = decision.event_position;
  return [
    facts([
      ["Decision", h("code", null, decision.decision_id)],
      ["Outcome", badge(decision.outcome, tone[decision.outcome])],
      ["Rule", `${decision.rule.rule_name}:${decision.rule.rule_version}`],
      ["Event", h("code", null, `${decision.event_id} at ${event.partition_id}:${event.offset}`)],
      ["As of (UTC)", decision.as_of_time_utc],
      ["Decided (UTC)", decision.decided_at_utc],
      ["Snapshot", link(["snapshot", hash], h("code", null, hash))],
      ["Basis", h("code", null, positions(hashed.input_basis))],
    ]),
    valuesTable(hash, hashed),
  ];
}
