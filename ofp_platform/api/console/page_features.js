import { h, empty } from "/console/dom.js";
import { ask } from "/console/api.js";
import { refused } from "/console/refusals.js";
import { samples } from "/console/history.js";
import { remember } from "/console/page_snapshot.js";

export async function featuresPage(_rest, { signal }) {
  const shownGroups = await ask("/v0/feature_groups", { signal });
  if (shownGroups.groups.length === 0) return empty("The pack has no group to ask for.");
  const kinds = [...new Set(shownGroups.groups.map((group) => group.key_type))];
  const kind = h("select", { name: "key_type" }, kinds.map((one) => h("option", { value: one }, one)));
  const id = h("input", { name: "key_id", required: true, autocomplete: "off", spellcheck: "false" });
  const watermark = samples.at(-1)?.health?.watermark_utc;
  const asOf = h("input", { name: "as_of", required: true, autocomplete: "off", spellcheck: "false", value: watermark ?? new Date().toISOString(), "aria-describedby": "as-of-hint" });
  const groups = h("fieldset", null);
  const context = h("fieldset", null);
  const outcome = h("div", null);
  const chosen = () => shownGroups.groups.filter((group) => groups.querySelector(`input[value="${CSS.escape(nameOf(group))}"]`)?.checked);
  const drawContext = () => {
    const fields = Object.assign({}, ...chosen().map((group) => group.request_context));
    context.hidden = Object.keys(fields).length === 0;
    context.replaceChildren(h("legend", null, "Of the request"), ...Object.entries(fields).map(([name, type]) =>
      h("label", null, `${name} (${type})`, h("input", { name: `context-${name}`, "data-name": name, "data-type": type, required: true, autocomplete: "off" }))));
  };
  const drawGroups = () => {
    groups.replaceChildren(h("legend", null, "Groups"), ...shownGroups.groups.filter((group) => group.key_type === kind.value).map((group, place) =>
      h("label", { class: "choice" }, h("input", { type: "checkbox", value: nameOf(group), checked: place === 0, onchange: drawContext }), nameOf(group))));
    drawContext();
  };
  kind.addEventListener("change", drawGroups);
  drawGroups();
  const submit = async (event) => {
    event.preventDefault();
    const asked = chosen().map(({ group_name, group_version }) => ({ group_name, group_version }));
    if (asked.length === 0) {
      outcome.replaceChildren(refused(new Error("no group is ticked: tick one at least.")));
      return;
    }
    const body = {
      kind: "get_features_request", contract_version: "ofp_public_contracts_v0", context_pins: shownGroups.context_pins,
      feature_keys: [{ key_type: kind.value, key_id: id.value.trim() }], feature_groups: asked, as_of_time_utc: asOf.value.trim(),
    };
    const given = [...context.querySelectorAll("input")].map((input) => [input.dataset.name, input.dataset.type === "integer" ? Number(input.value) : input.value]);
    if (given.length) body.request_context = Object.fromEntries(given);
    try {
      const answer = await ask("/v0/get_features", { body });
      remember(answer);
      location.hash = `#/snapshot/${answer.provenance.feature_snapshot_hash}`;
    } catch (error) {
      outcome.replaceChildren(refused(error));
    }
  };
  return [
    h("p", null, "One entity at one instant: the answer is a snapshot, under a hash that it has for good."),
    h("form", { onsubmit: submit },
      h("label", null, "Key type", kind),
      h("label", null, "Key", id),
      groups, context,
      h("label", null, "As of (UTC)", asOf, h("span", { class: "hint", id: "as-of-hint" }, "As in 2026-03-31T12:00:00Z. State is kept for as long behind the watermark as the profile says.")),
      h("div", { class: "row" }, h("button", { type: "submit", class: "first" }, "Ask"))),
    outcome,
  ];
}

const nameOf = (group) => `${group.group_name}:${group.group_version}`;
