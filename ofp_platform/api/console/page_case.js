import { h, badge, facts, link, note, table } from "/console/dom.js";
import { ask } from "/console/api.js";
import { time } from "/console/lists.js";
import { refused } from "/console/refusals.js";
import { newReference, onKeys } from "/console/case_keys.js";
import { labelBadges } from "/console/page_cases.js";

const CHOICES = [["fraud", "Fraud"], ["legitimate", "Legitimate"], ["suspected", "Suspected"]];
const LABEL_TYPE = "fraud_disposition";

const reference = (name, parts, value) => [`${name} `, link(parts, h("code", null, value.slice(0, 12)), { "aria-label": `${name} ${value.slice(0, 12)}` }), " "];

function evidenceOf({ trigger, evidence }) {
  const head = h("b", null, trigger);
  if (evidence.decision_id) {
    return [head, ": ", badge(evidence.outcome), ` score ${evidence.score} `, reference("decision", ["decision", evidence.decision_id], evidence.decision_id),
      reference("snapshot", ["snapshot", evidence.snapshot_hash], evidence.snapshot_hash), "event at ", h("code", null, evidence.position)];
  }
  if (evidence.first_position) return [head, ": another payload at ", h("code", null, evidence.position), " than at ", h("code", null, evidence.first_position)];
  return [head, ": ", evidence.reason ?? evidence.outcome_digest];
}

function wordsOf(content) {
  if (content.trigger) return evidenceOf(content);
  if (content.assertion) return `${content.assertion.label_type} ${content.word}`;
  if (content.target) return `${content.action_type} of ${content.target}: ${content.reason}`;
  return content.text ?? content.reason ?? content.assertion_id;
}

// A field and a button that appends one entry.
function entryForm(add, word, label, make) {
  const input = h("input", { required: true, maxlength: 400, autocomplete: "off" });
  const reference = newReference();
  return h("form", { onsubmit: (event) => { event.preventDefault(); add(make(input.value), reference); } },
    h("label", null, label, input), h("div", { class: "row" }, h("button", { type: "submit" }, word)));
}

export async function casePage([id = "", chosen], { signal, onLeave, announce }) {
  const path = `/v0/cases/${encodeURIComponent(id)}`;
  const one = await ask(path, { signal });
  const { standing, timeline } = one;
  const outcome = h("div");
  let choice = null;
  let sending = false;

  async function add(content, source_ref) {
    if (sending) return;
    sending = true;
    try {
      const body = { kind: "case_entry_ask", contract_version: "v0", context_pins: one.context_pins, source_ref, content };
      await ask(`${path}/entries`, { body, signal });
      if (chosen) location.hash = `#/case/${encodeURIComponent(id)}`;
      else dispatchEvent(new HashChangeEvent("hashchange"));
    } catch (error) {
      if (error.name === "AbortError") return;
      outcome.replaceChildren(refused(error));
    } finally {
      sending = false;
    }
  }

  const confirm = h("button", { type: "button", class: "first", hidden: true, onclick: () => add({ entry_type: "LABEL_PENDING", label_type: LABEL_TYPE, word: choice.word }, choice.reference) });
  const buttons = CHOICES.map(([word, title], place) =>
    h("button", { type: "button", "aria-pressed": "false", onclick: () => choose(place) }, `${place + 1} ${title}`));

  function choose(place) {
    buttons.forEach((button, other) => button.setAttribute("aria-pressed", String(other === place)));
    choice = { word: CHOICES[place][0], reference: newReference() };
    confirm.textContent = `Assert: ${CHOICES[place][1]}`;
    confirm.hidden = false;
    confirm.focus();
    announce(`${CHOICES[place][1]} is chosen; Enter asserts it, Escape takes it back`);
  }

  function back() {
    if (choice === null) {
      location.hash = "#/cases";
      return;
    }
    choice = null;
    confirm.hidden = true;
    buttons.forEach((button) => button.setAttribute("aria-pressed", "false"));
    buttons[0].focus();
    announce("Nothing is chosen");
  }

  onLeave(onKeys({ 1: () => choose(0), 2: () => choose(1), 3: () => choose(2), Escape: back }));
  if (["1", "2", "3"].includes(chosen)) queueMicrotask(() => requestAnimationFrame(() => choose(Number(chosen) - 1)));
  const waiting = standing.labels.filter((label) => label.state === "PENDING");
  const isClosed = standing.state === "CLOSED";
  return [
    facts([
      ["Case", h("code", null, one.case_id)],
      ["Event", [`${one.event_class} `, h("code", null, one.event_id)]],
      ["State", badge(standing.state)],
      ["Priority", standing.priority],
      ["Since (UTC)", time(standing.opened_at_utc)],
      ["Labels", standing.labels.length ? h("span", null, labelBadges(standing.labels)) : "none"],
    ].map(([name, value]) => [name, Array.isArray(value) ? h("span", null, value) : value])),
    waiting.length ? note("warn", "A label waits for the label store: ofp case settle asks again, and so does the same label once more.") : null,
    h("h2", null, "Label"),
    h("p", { class: "hint" }, "Choose, then assert. Keys: 1, 2, 3 choose, Enter asserts, Escape takes the choice back or leaves."),
    h("div", { class: "row", role: "group", "aria-label": "Label of this event" }, buttons, confirm),
    outcome,
    h("h2", null, "Timeline"),
    table("Entries, the oldest first; times in UTC", [
      ["Time (UTC)", (entry) => time(entry.at_utc)],
      ["Entry", (entry) => entry.content.entry_type],
      ["By", (entry) => entry.actor],
      ["What", (entry) => wordsOf(entry.content), "wide"],
    ], timeline),
    one.conflicts.length ? table("Came again with other content; the first stands", [
      ["Time (UTC)", (conflict) => time(conflict.at_utc)],
      ["Entry", (conflict) => `${conflict.entry_type} of ${conflict.source_ref}`],
      ["By", (conflict) => conflict.actor],
      ["First", (conflict) => h("code", null, conflict.first_digest.slice(0, 12))],
      ["Other", (conflict) => h("code", null, conflict.other_digest.slice(0, 12))],
    ], one.conflicts) : null,
    h("h2", null, "Add"),
    entryForm(add, "Add the note", "Note, without card numbers", (text) => ({ entry_type: "NOTE", text })),
    isClosed
      ? entryForm(add, "Reopen the case", "Why it is looked at again", (reason) => ({ entry_type: "REOPENED", reason }))
      : entryForm(add, "Close the case", "Why nobody has to look any more", (reason) => ({ entry_type: "CLOSED", reason })),
    h("p", null, link(["cases"], "All open cases")),
  ];
}
