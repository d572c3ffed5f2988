// The mode in force of who decides: since when, why, and the kill switch.

import { h, badge, facts, note, table } from "/console/dom.js";
import { ask } from "/console/api.js";
import { missing, time } from "/console/lists.js";
import { refused } from "/console/refusals.js";

const MODES = ["NORMAL", "REDUCED", "RULES_ONLY", "HOLD", "FAIL_CLOSED"];
const TONES = { NORMAL: "good", REDUCED: "warn", RULES_ONLY: "warn", HOLD: "bad", FAIL_CLOSED: "bad" };

// null: the policy has no thresholds, so that there is nothing to look at
const watched = (seen) => {
  if (seen === null) return "no signal changes the mode: the policy has no thresholds";
  const ago = seen.last_look_ms === null ? "nobody ever looked at the signals" : `the last look at the signals was ${(seen.last_look_ms / 1000).toFixed(1)} s ago`;
  return seen.is_watched ? ago : [badge("NOT WATCHED", "bad"), ` ${ago}: start ofp posture watch`];
};

export async function posturePage(_rest, { signal }) {
  const state = h("div", null);
  const outcome = h("div", { role: "status" });
  const draw = (view) => {
    const [last] = view.changes;
    const { mode } = view.in_force;
    state.replaceChildren(
      facts([
        ["Mode in force", badge(mode, TONES[mode])],
        ["Since (UTC)", last ? time(last.at_utc) : missing("nobody ever said anything else")],
        ["Why", last ? last.reasons.join("; ") : missing("nothing was said")],
        ["Watched", watched(view.watched)],
        ["Held", last?.held ? `yes, by ${last.actor}: no signal changes it` : "no"],
      ]),
      last ? table("Changes, the newest first; times in UTC", [
        ["At (UTC)", (one) => time(one.at_utc)],
        ["Mode", (one) => badge(one.mode, TONES[one.mode])],
        ["Held", (one) => (one.held ? "yes" : "no")],
        ["Who", (one) => one.actor],
        ["Why", (one) => one.reasons.join("; "), "wide"],
        ["Signals", (one) => Object.entries(one.signals).map(([name, value]) => `${name} ${value ?? "absent"}`).join(", ") || missing("not looked at"), "wide"],
      ], view.changes) : "");
  };
  const change = async (path, body, words) => {
    try {
      draw(await ask(path, { body }));
      outcome.replaceChildren(note("plain", words));
    } catch (error) {
      outcome.replaceChildren(refused(error));
    }
  };
  const mode = h("select", { name: "mode" }, MODES.map((one) => h("option", { value: one, selected: one === "HOLD" }, one)));
  const why = (name) => h("input", { name, required: true, maxlength: "400", autocomplete: "off" });
  const holdReason = why("hold-reason");
  const releaseReason = why("release-reason");
  draw(await ask("/v0/posture", { signal }));
  return [
    state,
    h("form", { "aria-label": "Hold a mode", onsubmit: (event) => {
      event.preventDefault();
      change("/v0/posture/hold", { mode: mode.value, reason: holdReason.value }, `${mode.value} is held. No decision under the former mode can be committed any more.`);
    } },
      h("h2", null, "Hold a mode"),
      h("label", null, "Mode", mode),
      h("label", null, "Why it is held", holdReason),
      h("div", { class: "row" }, h("button", { type: "submit", class: "first" }, "Hold"))),
    h("form", { "aria-label": "Release", onsubmit: (event) => {
      event.preventDefault();
      change("/v0/posture/release", { reason: releaseReason.value }, "It is released: signals change the mode again.");
    } },
      h("h2", null, "Release"),
      h("label", null, "Why it is released", releaseReason),
      h("div", { class: "row" }, h("button", { type: "submit" }, "Release"))),
    outcome,
  ];
}
