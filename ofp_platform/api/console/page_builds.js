import { h, badge, empty, facts, link, note, number, table, short } from "/console/dom.js";
import { ask, query } from "/console/api.js";
import { digestLink, missing, more, size, time } from "/console/lists.js";

const STATES = ["QUEUED", "RUNNING", "PUBLISH_PENDING", "DONE", "FAILED"];
const TONES = { QUEUED: "plain", RUNNING: "plain", PUBLISH_PENDING: "warn" };
const state = (one) => badge(one.state, TONES[one.state]);
const subject = (one) => [one.intent.replaceAll("_", " "), one.dataset_name].filter(Boolean).join(" ");

function attempts(one) {
  const built = `${number(one.attempts)} of ${number(one.attempt_limit)}`;
  return one.publish_only ? `${built}, to publish ${number(one.publish_attempts)} of ${number(one.publish_attempt_limit)}` : built;
}

function progress(one) {
  if (!one.newest_stage) return missing(one.state === "RUNNING" ? "no stage ended yet" : "none");
  return h("span", null, one.newest_stage.stage, " at ", time(one.newest_stage.recorded_at_utc));
}

const why = (one) => (one.refusal ? [one.refusal.reason, one.refusal.field && `(${one.refusal.field})`, one.refusal.message].filter(Boolean).join(" ") : null);

export async function buildsPage([given = "", cursor], { signal }) {
  const chosen = STATES.includes(given) ? given : "";
  const page = await ask("/v0/build_runs" + query({ limit: 20, state: chosen, cursor }), { signal });
  return [
    h("nav", { "aria-label": "Builds by state" }, h("ul", { class: "row" }, ["", ...STATES].map((name) =>
      h("li", null, link(name ? ["builds", name] : ["builds"], name || "All", name === chosen ? { "aria-current": "true" } : null))))),
    page.builds.length
      ? table("Builds, the newest first; times in UTC", [
        ["Build", (one) => digestLink(["build", one.run_key], one.run_key, "Build")],
        ["State", state],
        ["What", subject, "wide"],
        ["Reason", (one) => why(one) ?? missing("none"), "wide"],
        ["Last stage that ended (UTC)", progress],
        ["Attempts", attempts],
        ["Estimate", (one) => (one.size ? `${number(one.size.rows)} rows, ${size(one.size.bytes)}` : missing("not made yet"))],
        ["Submitted (UTC)", (one) => time(one.submitted_at_utc)],
        ["By", (one) => one.submitted_by ?? missing("nobody is named")],
      ], page.builds)
      : empty(chosen ? `No build of this run is ${chosen}.` : "No build was asked for of this run.", "ofp intent submit FILE asks for one; POST /v0/build_intents too."),
    page.next_cursor ? h("p", null, link(["builds", chosen || "all", page.next_cursor], "Earlier builds")) : null,
  ];
}

export async function buildPage([key = ""], { signal }) {
  const { build, stages } = await ask(`/v0/build_runs/${encodeURIComponent(key)}/stages`, { signal });
  return [
    facts([
      ["Build", h("code", null, build.run_key)],
      ["State", state(build)],
      ["What", subject(build)],
      ["Attempts", attempts(build)],
      ["Submitted (UTC)", h("span", null, time(build.submitted_at_utc), ` by ${build.submitted_by ?? "nobody who is named"}`)],
      ["Changed (UTC)", time(build.changed_at_utc)],
      ["Records, rows, size", build.size ? `${number(build.size.records)} records, at most ${number(build.size.rows)} rows, about ${size(build.size.bytes)}` : "not estimated yet"],
      ["Dataset", build.dataset_identity ? link(["dataset", build.dataset_name ?? "", build.dataset_identity], h("code", null, build.dataset_identity)) : "none"],
    ]),
    build.refusal ? note(build.state === "FAILED" ? "bad" : "warn", why(build), `ofp intent show ${key.slice(0, 12)} has the whole of it; ofp intent retry ${key.slice(0, 12)} gives it new attempts.`) : null,
    h("h2", null, "Stages that ended"),
    stages.length
      ? table("In their order; times in UTC", [
        ["Stage", (one) => one.stage],
        ["Attempt", (one) => number(one.attempt), "number"],
        ["Attempt to publish", (one) => (one.publish_attempt ? number(one.publish_attempt) : missing("none")), "number"],
        ["Ended (UTC)", (one) => time(one.recorded_at_utc)],
        ["Receipt", (one) => short(one.digest)],
      ], stages)
      : empty(build.state === "QUEUED" ? "It waits: no builder has begun." : "No stage ended yet."),
  ];
}
