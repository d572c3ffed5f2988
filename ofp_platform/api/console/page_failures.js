import { h, empty, link, table } from "/console/dom.js";
import { ask, query } from "/console/api.js";

export async function failuresPage([after], { signal }) {
  const page = await ask("/v0/apply_failures" + query({ limit: 50, after }), { signal });
  if (page.failures.length === 0) return empty(after ? "No record behind this one failed." : `No record of projection ${page.projection_id} failed to apply.`);
  return [
    h("p", null, "Records that feed no group, or not all. The field at fault is named; what stands in it is not shown: ofp log show POSITION shows the envelope."),
    table("In the order of the log", [
      ["Position", (one) => h("code", null, `${one.partition_id}:${one.offset}`)],
      ["Event time (UTC)", (one) => one.event_time_utc ?? "not readable"],
      ["Reason", (one) => h("code", null, one.reason)],
      ["Detail", (one) => one.detail, "wide"],
      ["Not fed", (one) => one.groups || "every group", "wide"],
    ], page.failures),
    page.next_after ? h("p", null, link(["failures", page.next_after], "Later failures")) : null,
  ];
}
