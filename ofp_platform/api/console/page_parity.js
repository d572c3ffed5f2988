import { h, badge, empty, facts, link, note, number, table } from "/console/dom.js";
import { ask, query } from "/console/api.js";
import { digestLink, missing, more, share, time } from "/console/lists.js";
import { shown } from "/console/values.js";

// Green is what was compared and equal; where nothing was compared there is nothing to be green about.
function verdict({ match, mismatch, uncheckable }) {
  if (mismatch) return badge("MISMATCH");
  if (!match) return badge("NOTHING COMPARED", "warn");
  return uncheckable ? badge("MATCH, NOT ALL", "warn") : badge("MATCH");
}

const counts = [
  ["Match", (one) => number(one.match), "number"],
  ["Mismatch", (one) => number(one.mismatch), "number"],
  ["Not checkable", (one) => number(one.uncheckable), "number"],
  ["Equal", (one) => share(one.match, one.match + one.mismatch), "number"],
];
const group = (one) => h("code", null, `${one.group_name}:${one.group_version}`);

function skewTable(datasets) {
  const rows = datasets.filter((one) => one.skew);
  if (rows.length === 0) return empty("No dataset of this page has a table of skew: it is made of rows of events with another as-of basis than decision.");
  return table("Rows of datasets beside what was served for them", [
    ["Dataset", (one) => link(["dataset", one.dataset_name, one.dataset_identity], `${one.dataset_name} ${one.dataset_identity.slice(0, 8)}`)],
    ["Decisions", (one) => number(one.skew.decisions), "number"],
    ["Compared", (one) => number(one.skew.compared), "number"],
    ["Features that differ", (one) => (one.skew.compared ? `${number(one.skew.differing_features)} of ${number(one.skew.features)}` : missing("nothing compared")), "number"],
    ["Most differing", (one) => (one.skew.worst_feature ? h("code", null, one.skew.worst_feature) : missing("none"))],
    ["Share of decisions", (one) => (one.skew.worst_feature ? share(one.skew.worst_differing, one.skew.worst_compared) : missing("none")), "number"],
  ], rows);
}

export async function parityPage([cursor], { signal }) {
  const [page, datasets] = await Promise.all([
    ask("/v0/parity" + query({ limit: 20, cursor }), { signal }),
    ask("/v0/datasets" + query({ limit: 20 }), { signal }),
  ]);
  return [
    h("p", null, "Each recorded decision is rebuilt from the log and compared by hash with what was served for it."),
    page.comparisons.length
      ? table("Comparisons, those of the newest decisions first; times in UTC", [
        ["Comparison", (one) => digestLink(["comparison", one.comparison_id], one.comparison_id, "Comparison")],
        ["Verdict", verdict],
        ...counts,
        ["Made by", (one) => (one.requested_by === "build" ? link(["build", one.comparison_id], "a build") : "a run of parity")],
        ["First as-of (UTC)", (one) => time(one.first_as_of_utc)],
        ["Last as-of (UTC)", (one) => time(one.last_as_of_utc)],
      ], page.comparisons)
      : empty("Nothing was compared.", "That says nothing of parity, good or bad: ofp parity run compares every recorded decision with its rebuild."),
    more("parity", page.next_cursor, "Earlier comparisons"),
    h("h2", null, "Skew of published datasets"),
    datasets.datasets.length ? skewTable(datasets.datasets) : empty("No dataset is published of this run: there are no rows to hold against what was served."),
    datasets.next_cursor && h("p", null, "More datasets are published than are shown here: ", link(["datasets"], "all of them"), "."),
  ];
}

function daysTable(days) {
  return table("By day of the decisions (UTC) and group, the newest first", [
    ["Day (UTC)", (one) => h("time", null, one.day)],
    ["Group", group],
    ["Verdict", verdict],
    ...counts,
  ], days);
}

const mismatchPlace = (one) => [one.where, one.key_type && `${one.key_type}:${one.key_id}`, one.group_name && `${one.group_name}:${one.group_version}`, one.feature].filter(Boolean).join(" ");

function mismatchTable(mismatches) {
  return table("The earliest mismatches, and the first place at which each differs", [
    ["Served snapshot", (one) => digestLink(["snapshot", one.online_snapshot_ref], one.online_snapshot_ref, "Snapshot")],
    ["Decision", (one) => (one.decision_id ? digestLink(["decision", one.decision_id], one.decision_id, "Decision") : missing("none"))],
    ["As of (UTC)", (one) => time(one.as_of_time_utc)],
    ["Where", (one) => h("code", null, mismatchPlace(one) || "not readable"), "wide"],
    ["Served", (one) => shown(one.served)],
    ["Rebuilt", (one) => shown(one.rebuilt)],
    ["Places", (one) => number(one.differences), "number"],
    ["What the events say", (one) => one.detail ?? missing("nothing"), "wide"],
  ], mismatches);
}

export async function comparisonPage([id = "", before], { signal }) {
  const report = await ask(`/v0/parity/${encodeURIComponent(id)}` + query({ before }), { signal });
  const one = report.comparison;
  const corrected = report.corrected;
  return [
    facts([
      ["Comparison", h("code", null, one.comparison_id)],
      ["Verdict", verdict(one)],
      ["Match", number(one.match)],
      ["Mismatch", number(one.mismatch)],
      ["Not checkable", number(one.uncheckable)],
      ["As of (UTC)", h("span", null, time(one.first_as_of_utc), " to ", time(one.last_as_of_utc))],
    ]),
    report.uncheckable.length
      ? note("warn", "What could not be compared is neither good nor bad:", h("ul", null, report.uncheckable.map((why) => h("li", null, h("code", null, why.reason), ` ${number(why.count)}`))))
      : null,
    h("h2", null, "Parity by day and group"),
    report.days.length ? daysTable(report.days) : empty(before ? "Nothing that was compared is of an earlier day." : "Nothing of it can be told by day."),
    report.undated ? note("warn", `${number(report.undated)} snapshots are in no day: their time or groups cannot be read.`) : null,
    report.next_before && h("p", null, link(["comparison", id, report.next_before], "Earlier days")),
    h("h2", null, "Mismatches"),
    report.mismatches.length
      ? [mismatchTable(report.mismatches), one.mismatch > report.mismatches.length ? h("p", null, `${number(one.mismatch)} in all; ofp parity show ${id.slice(0, 12)} --mismatches N shows more.`) : null]
      : one.match ? empty("Nothing that was compared differs.") : empty("Nothing was compared, so nothing differs."),
    h("h2", null, "Skew: what late events would have changed"),
    corrected.length
      ? table("Decisions of these days that would have had other features", [
        ["Day (UTC)", (row) => h("time", null, row.day)],
        ["Group", group],
        ["Decisions", (row) => number(row.decisions), "number"],
        ["Values", (row) => number(row.values), "number"],
      ], corrected)
      : empty("No correction is recorded of these days.", "Either no late event would have changed a decision, or nobody looked up to this basis: ofp parity corrections looks."),
  ];
}
