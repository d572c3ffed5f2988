import { ask, key, query } from "/console/api.js";
import { h, badge, facts, number, note, table, text, empty } from "/console/dom.js";
import { chart } from "/console/chart.js";
import { samples, onSample } from "/console/history.js";
import { refused } from "/console/refusals.js";

const total = (counts) => Object.values(counts).reduce((sum, one) => sum + one, 0);
const card = (name, value, unit) => h("div", { class: "card" }, name, h("b", null, value), unit ? h("small", null, unit) : null);

function current({ health, refusal }) {
  if (!health) return [refused(refusal)];
  const lag = health.partitions.length ? number(health.partitions.reduce((sum, one) => sum + one.lag_records, 0)) : "not known";
  return [
    h("p", { class: "row" }, "State", badge(health.state), h("span", null, health.reasons.length ? health.reasons.join(", ") : health.projection ? "no reason for concern" : "")),
    health.projection === null && note("warn", "Nothing is projected here yet: ofp up or ofp projector run makes a projection."),
    h("div", { class: "cards" },
      card("Lag", lag, "records"),
      health.watermark_age_seconds === null
        ? card("Watermark age", "not known")
        : card("Watermark age", duration(health.watermark_age_seconds), `${number(health.watermark_age_seconds)} s`),
      card("Apply failures", number(total(health.apply_failures)), "records, since the projection began"),
      card("Answers not stored", number(health.counters.served_log_dropped ?? 0), "since the service was started")),
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

const charts = (kept) => [
  ...(kept ? keptCharts(kept) : [
    note("plain", key.get() ? "What the service keeps of the last day cannot be read with this key: it needs the scope operate." : "With a key of the scope operate, the last day stands here."),
    chart("Lag", "records", samples.map(({ at, lag }) => ({ at, value: lag }))),
    chart("Watermark age", "seconds", samples.map(({ at, age }) => ({ at, value: age }))),
  ]),
];

const STATES = ["GREEN", "AMBER", "RED"];

function duration(seconds) {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${number(Math.round(seconds / 86400))} days`;
}

function keptCharts({ seconds, samples: kept }) {
  const spans = (state) => kept.filter((one) => one.state === state).length * seconds;
  const at = (one) => Date.parse(one.at_utc);
  return [
    h("p", { class: "row" }, h("b", null, "State"), STATES.map((state) => h("span", null, badge(state), ` ${duration(spans(state))}`)),
      h("span", { class: "muted" }, `not observed ${duration(spans(null))}`)),
    chart("Lag", "records", kept.map((one) => ({ at: at(one), value: one.lag_records })), seconds),
    chart("Watermark age", "seconds", kept.map((one) => ({ at: at(one), value: one.watermark_age_seconds })), seconds),
    h("p", { class: "muted" }, `Each point is the worst of ${duration(seconds)}, whichever worker saw it. A gap: no service ran, or it could not see.`),
  ];
}

const FRESH = 60_000;

// What the service kept of the last `hours`; null for who may not read it.
function history(signal) {
  let [kept, read, of] = [null, 0, 0];
  return async (hours) => {
    if (key.get() && (hours !== of || Date.now() - read > FRESH)) {
      [read, of] = [Date.now(), hours];
      try {
        kept = await ask("/v0/health_history" + query({ hours }), { signal });
      } catch (error) {
        if (error.name === "AbortError") throw error;
        kept = null; // the rest of the page needs no key
      }
    }
    return kept;
  };
}

export async function healthPage(_rest, { onLeave, signal }) {
  if (samples.length === 0) await new Promise((resolve) => onLeave(onSample(resolve)));
  const [top, title, middle, bottom] = [h("div", null), h("h2", null), h("div", null), h("div", null)];
  const kept = history(signal);
  let hours = 24;
  let spans = await kept(hours);
  const draw = (newest) => {
    top.replaceChildren(...current(newest).filter(Boolean));
    if (middle.contains(document.activeElement) || middle.querySelector("details[open]")) return; // somebody reads it
    title.textContent = spans === null ? "Since this page was opened" : `Last ${hours === 1 ? "hour" : `${hours} hours`}, as the service kept it`;
    middle.replaceChildren(...charts(spans));
    choice.hidden = spans === null;
  };
  const refresh = async () => {
    try {
      spans = await kept(hours);
    } catch {
      return; // the page was left
    }
    draw(samples.at(-1));
  };
  const buttons = [1, 6, 24].map((span) => h("button", { type: "button", "aria-pressed": String(span === hours), onclick: () => {
    hours = span;
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.value === String(span)));
    refresh();
  }, value: span }, span === 1 ? "1 hour" : `${span} hours`));
  const choice = h("div", { class: "row", role: "group", "aria-label": "Time that is shown" }, buttons);
  draw(samples.at(-1));
  bottom.replaceChildren(...details(samples.at(-1)));
  onLeave(onSample(refresh));
  return [top, title, choice, middle, bottom];
}
