import { h, empty, facts, link, note, number, table } from "/console/dom.js";
import { ask, query } from "/console/api.js";
import { shown } from "/console/values.js";

function windowOf(window) {
  const where = Object.entries(window.where).map(([field, values]) => `${field} one of ${values.join(", ")}`);
  const rows = [...window.events].reverse();
  return [
    h("h2", null, window.role === "value" ? "Window" : `Window of the ${window.role}`),
    facts([
      ["Computed", `${window.aggregation}${window.of ? ` of ${window.of}` : ""}`],
      ["Events of", [window.event_types.join(", "), ...where].join("; ")],
      ["Time (UTC)", `after ${window.after_utc}, until ${window.until_utc}`],
      ["Events in it", number(window.event_count)],
    ]),
    window.event_count > window.events.length ? note("warn", `Only the newest ${number(window.events.length)} are listed; ofp snapshot explain lists them all.`) : null,
    rows.length
      ? table("Events, newest first", [
          ["Position", (one) => h("code", null, `${one.partition_id}:${one.offset}`)],
          ["Event time (UTC)", (one) => one.event_time_utc],
          ["Admitted (UTC)", (one) => one.admitted_at_utc],
          ["Event", (one) => h("code", null, one.event_id)],
          ["Type", (one) => one.event_type],
          ["Copies", (one) => number(one.copies), "number"],
        ], rows)
      : empty("No event lies in this window: the value is that of an empty window."),
  ];
}

export async function explanationPage([hash = "", key, group, feature], { signal, announce }) {
  announce("The log is being read again; this takes some seconds");
  const path = `/v0/snapshots/${encodeURIComponent(hash)}/explanation`;
  const explanation = await ask(path + query({ feature, key, group }), { signal });
  return [
    facts([
      ["Feature", `${explanation.feature} of ${explanation.group_name}:${explanation.group_version}`],
      ["Key", h("code", null, `${explanation.key_type}:${explanation.key_id}`)],
      ["As of (UTC)", explanation.as_of_time_utc],
      ["Value", shown(explanation.value)],
      ["Snapshot", link(["snapshot", hash], h("code", null, hash))],
    ]),
    note("good", `Computed again from ${number(explanation.records_read)} records of the log: the hash is the same.`),
    explanation.windows.map(windowOf),
    h("p", { class: "muted" }, "What is in an event is not shown here: ofp log show POSITION does, to whoever may read the log."),
  ];
}
