import { h, badge, empty, link, note, number, short, table } from "/console/dom.js";
import { ask, query } from "/console/api.js";
import { time } from "/console/lists.js";
import { onKeys } from "/console/case_keys.js";

const STATES = { OPEN: "open", CLOSED: "closed" };
const LABEL_TONES = { PENDING: "warn", REJECTED: "bad" };

export const labelBadges = (labels) => labels.map((one) => [badge(`${one.word} ${one.state}`, LABEL_TONES[one.state]), " "]);

export async function casesPage([state = "OPEN", cursor], { signal, onLeave }) {
  const page = await ask("/v0/cases" + query({ state, limit: 50, cursor }), { signal });
  const words = STATES[state] ?? state;
  const conflicts = page.conflicts
    ? note("bad", `${number(page.conflicts)} entries of this run came again with other content (CASE_ENTRY_CONFLICT): each stands in its case, under the timeline.`)
    : null;
  const others = h("p", null, Object.entries(STATES).map(([name, word]) => [link(["cases", name], `Cases that are ${word}`, { "aria-current": name === state ? "true" : null }), " "]));
  if (page.cases.length === 0) {
    return [others, conflicts, empty(`No case is ${words}.`, "ofp case collect opens cases of decisions to review or decline, and of ids with two payloads; ofp case trigger opens one.")];
  }
  const rows = page.cases.map((one) => ({ ...one, ...one.standing, link: link(["case", one.case_id], short(one.case_id), { "aria-label": `Case ${one.case_id.slice(0, 12)} on ${one.event_id}` }) }));
  const step = (by) => {
    const place = rows.findIndex((row) => row.link === document.activeElement);
    const next = place < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, place + by));
    rows[next].link.focus();
  };
  const label = (choice) => {
    const row = rows.find((one) => one.link === document.activeElement);
    if (row) location.hash = link(["case", row.case_id, choice]).getAttribute("href");
  };
  onLeave(onKeys({ j: () => step(1), k: () => step(-1), 1: () => label("1"), 2: () => label("2"), 3: () => label("3") }));
  return [
    others,
    conflicts,
    h("p", { class: "hint" }, "Keys: j and k move, Enter opens, 1, 2 and 3 open with a label chosen."),
    table(`Cases that are ${words}, the most urgent first; times in UTC`, [
      ["Case", (row) => row.link],
      ["Priority", (row) => row.priority, "number"],
      ["Since (UTC)", (row) => time(row.opened_at_utc)],
      ["Event", (row) => h("code", null, row.event_id)],
      ["Why", (row) => row.triggers.join(", ")],
      ["Labels", (row) => labelBadges(row.labels)],
    ], rows),
    page.next_cursor ? h("p", null, link(["cases", state, page.next_cursor], "Less urgent cases")) : null,
  ];
}
