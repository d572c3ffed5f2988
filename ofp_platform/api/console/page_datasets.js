import { h, badge, empty, facts, link, note, number, short, table } from "/console/dom.js";
import { ask, query } from "/console/api.js";
import { digestLink, missing, more, problems, share, size, time } from "/console/lists.js";

const STATE = {
  AS_RECORDED: ["AS RECORDED", "good"],
  DIFFERS: ["DIFFERS", "bad"],
  UNREADABLE: ["UNREADABLE", "bad"],
};
const state = (one) => badge(...(STATE[one.manifest.state] ?? [one.manifest.state, "plain"]));
const known = (value) => (value === null || value === undefined ? missing("not readable") : value);
const pack = (one) => (one.feature_pack ? `${one.feature_pack.pack_id} revision ${one.feature_pack.revision}` : missing("not readable"));

export async function datasetsPage([cursor], { signal }) {
  const page = await ask("/v0/datasets" + query({ limit: 20, cursor }), { signal });
  return [
    page.datasets.length
      ? table("Published datasets by name; times in UTC", [
        ["Dataset", (one) => link(["dataset", one.dataset_name, one.dataset_identity], one.dataset_name)],
        ["Identity", (one) => short(one.dataset_identity)],
        ["Manifest", state],
        ["Purpose", (one) => known(one.purpose)],
        ["Content", (one) => (one.rows === null ? known(null) : `${number(one.rows)} rows, ${number(one.columns)} columns, ${size(one.bytes)}`)],
        ["Published (UTC)", (one) => time(one.published_at_utc)],
        ["Label", (one) => one.label_type ?? (one.rows === null ? known(null) : missing("none"))],
        ["Replaced by", (one) => (one.superseded_by.length ? one.superseded_by.map((other) => digestLink(["dataset", one.dataset_name, other], other, "Dataset")) : missing("none"))],
        ["Pack", pack],
      ], page.datasets)
      : empty(cursor ? "No other dataset of this run stands here." : "No dataset is published of this run.", "A build of the intent dataset_build publishes one: ofp intent submit FILE."),
    more("datasets", page.next_cursor, "More datasets"),
    h("p", { class: "muted" }, "As recorded: the manifest is the one that index and build recorded. The data files are not read for it: ofp dataset verify reads every byte."),
  ];
}

const days = (seconds) => `${number(seconds / 86400)} days`;
const know = {
  decision: "decision: what the recorded decision knew",
  ingest_time: "ingest_time: what was admitted no later than the row's own event",
  event_time: "event_time: the whole replay, hindsight included",
};

function skew(manifest) {
  if (!manifest.skew) return empty("The manifest has no table of skew: it is made of rows of events with another as-of basis than decision.");
  const rows = Object.entries(manifest.skew.features);
  if (!manifest.skew.compared) return note("warn", `None of ${number(manifest.skew.decisions)} decisions about these rows could be compared: nothing is known of skew.`);
  return table(`${number(manifest.skew.compared)} of ${number(manifest.skew.decisions)} decisions about ${number(manifest.skew.rows)} rows compared with what was served`, [
    ["Column", ([name]) => h("code", null, name)],
    ["Compared", ([, one]) => number(one.compared), "number"],
    ["Differing", ([, one]) => number(one.differing), "number"],
    ["Share", ([, one]) => share(one.differing, one.compared), "number"],
  ], rows.sort(([, one], [, other]) => other.differing - one.differing));
}

function gates({ gates: one }) {
  const c = one.completeness;
  return facts([
    ["Records", `${number(c.records)}: ${number(c.applied)} applied, ${number(c.duplicates)} copies, ${number(c.failed)} failed, ${number(c.ignored)} ignored, ${number(c.other_run)} of another run`],
    ["Labels", one.labels ? `coverage ${one.labels.coverage} of ${number(one.labels.mature)} mature rows, ${number(one.labels.labelled)} labelled, ${number(one.labels.immature)} immature` : "none"],
    ["Leakage", `${number(one.label_rows_checked)} labelled rows held against every assertion, features of ${number(one.feature_rows_checked)} rows computed again`],
    ["Parity", one.parity ? `${number(one.parity.match)} of ${number(one.parity.anchors)} decisions match, ${number(one.parity.mismatch)} do not, ${number(one.parity.uncheckable)} could not be compared` : "nothing was compared"],
    ["Served vectors", one.served ? `${number(one.served.compared)} of ${number(one.served.rows)} rows, ${number(one.served.values)} values: all equal` : "not held against rows"],
  ]);
}

function content(manifest) {
  const label = manifest.label_basis;
  return [
    h("h2", null, "Manifest"),
    facts([
      ["Purpose", manifest.purpose],
      ["Rows", `${number(manifest.row_count)} in the order ${manifest.row_order}`],
      ["Rows know", know[manifest.as_of_basis] ?? manifest.as_of_basis],
      ["Run", h("code", null, `${manifest.context_pins.scenario_id}/${manifest.context_pins.run_id}`)],
      ["Pack", h("span", null, `${manifest.feature_pack.pack_id} revision ${manifest.feature_pack.revision} `, short(manifest.feature_pack.digest))],
      ["Groups", h("code", null, manifest.feature_groups.map((one) => `${one.group_name}:${one.group_version}`).join(", "))],
      ["Label", label ? `${label.label_type} as of ${label.as_of_utc}, mature after ${days(label.maturity_seconds)}` : "none"],
      ["Label rule", label ? label.rule.replaceAll("_", " ") : "none"],
      ["Build policy", `${manifest.policy.policy_id} revision ${manifest.policy.revision}`],
      ["policy_rev", h("code", null, manifest.policy_rev ?? "of an earlier release")],
      ["Built by", manifest.ofs_code_release_id],
      ["Content digest", h("code", null, manifest.content_digest)],
    ]),
    h("h2", null, "Gates that it passed"),
    gates(manifest),
    h("h2", null, "Skew against what was served"),
    skew(manifest),
    h("h2", null, "Columns"),
    table(`${number(manifest.columns.length)} columns`, [
      ["Column", (one) => h("code", null, one.name)],
      ["Type", (one) => one.type],
      ["Role", (one) => one.role.replaceAll("_", " ")],
    ], manifest.columns),
    h("h2", null, "Files"),
    table("Parquet, in the order of the rows", [
      ["Path in the object store", (one) => h("code", null, one.path), "wide"],
      ["Rows", (one) => number(one.rows), "number"],
      ["Size", (one) => size(one.bytes), "number"],
      ["SHA-256", (one) => short(one.sha256)],
    ], manifest.files),
  ];
}

export async function datasetPage([name = "", identity = ""], { signal }) {
  const { entry, manifest } = await ask(`/v0/datasets/${encodeURIComponent(identity)}` + query({ name }), { signal });
  const reference = `${entry.dataset_name}:${entry.dataset_identity.slice(0, 12)}`;
  return [
    facts([
      ["Dataset", entry.dataset_name],
      ["Identity", h("code", null, entry.dataset_identity)],
      ["Manifest", state(entry)],
      ["Published (UTC)", time(entry.published_at_utc)],
      ["Build", link(["build", entry.request_id], h("code", null, entry.request_id))],
      ["Replaces", entry.supersedes ? digestLink(["dataset", entry.dataset_name, entry.supersedes], entry.supersedes, "Dataset") : "none"],
      ["Replaced by", entry.superseded_by.length ? entry.superseded_by.map((other) => digestLink(["dataset", entry.dataset_name, other], other, "Dataset")) : "none"],
    ]),
    problems(entry.manifest.problems),
    h("h2", null, "To read it"),
    facts([
      ["Verify every byte", h("code", null, `ofp dataset verify ${reference}`)],
      ["Lines for pandas, Polars, DuckDB", h("code", null, `ofp dataset load ${reference}`)],
      ["Write it to a folder", h("code", null, `ofp dataset load ${reference} --to FOLDER`)],
    ]),
    manifest ? content(manifest) : null,
  ];
}
