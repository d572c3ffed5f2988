import { h, badge, facts, number, note, table, text, empty } from "/console/dom.js";
import { chart } from "/console/chart.js";
import { samples, onSample } from "/console/history.js";
import { refused } from "/console/refusals.js";

const total = (counts) => Object.values(counts).reduce((sum, one) => sum + one, 0);
const card = (name, value) => h("div", { class: "card" }, name, h("b", null, value));

function current({ health, refusal }) {
  if (!health) return [refused(refusal)];
  const lag = health.partitions.length ? number(health.partitions.reduce((sum, one) => sum + one.lag_records, 0)) : "not known";
  return [
    h("p", { class: "row" }, "State", badge(health.state), h("span", null, health.reasons.length ? health.reasons.join(", ") : health.projection ? "no reason for concern" : "")),
    health.projection === null && note("warn", "Nothing is projected here yet: ofp up or ofp projector run makes a projection."),
    h("div", { class: "cards" },
      card("Lag (records)", lag),
      card("Watermark age (s)", health.watermark_age_seconds === null ? "not known" : number(health.watermark_age_seconds)),
      card("Apply failures", number(total(health.apply_failures))),
      card("Answers not stored", number(health.counters.served_log_dropped ?? 0))),
    facts([["Watermark (UTC)", text(health.watermark_utc)], ["Projection", text(health.projection)]]),
  ];
}

function details({ health }) {
  if (!health) return [];
  const failures = Object.entries(health.apply_failures);
  return [
    h("h2", null, "Partitions"),
    health.partitions.length
      ? table("Lag of each partition", [["Partition", (one) => h("code", null, one.partition_id)], ["Lag (records)", (one) => number(one.lag_records), "number"]], health.partitions)
      : empty("No partition was observed yet."),
    h("h2", null, "Apply failures by reason"),
    failures.length
      ? table("Records that feed no group, or not all", [["Reason", ([reason]) => h("code", null, reason)], ["Records", ([, count]) => number(count), "number"]], failures)
      : health.projection === null
        ? empty("Not known: nothing is projected.")
        : empty("No record failed to apply."),
    h("h2", null, "Counters of this process"),
    table("Since it was started", [["Counter", ([name]) => h("code", null, name)], ["Value", ([, value]) => number(value), "number"]], Object.entries(health.counters)),
  ];
}

const charts = () => [
  h("h2", null, "Since this page was opened"),
  chart("Lag", "records", samples.map(({ at, lag }) => ({ at, value: lag }))),
  chart("Watermark age", "seconds", samples.map(({ at, age }) => ({ at, value: age }))),
];

export async function healthPage(_rest, { onLeave }) {
  if (samples.length === 0) await new Promise((resolve) => onLeave(onSample(resolve)));
  const [top, middle, bottom] = [h("div", null), h("div", null), h("div", null)];
  const draw = (newest) => {
    top.replaceChildren(...current(newest).filter(Boolean));
    if (middle.contains(document.activeElement) || middle.querySelector("details[open]")) return; // somebody reads it
    middle.replaceChildren(...charts());
  };
  draw(samples.at(-1));
  bottom.replaceChildren(...details(samples.at(-1)));
  onLeave(onSample(draw));
  return [top, middle, bottom];
}
