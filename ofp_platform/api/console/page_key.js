import { h, note } from "/console/dom.js";
import { key } from "/console/api.js";

export function keyPage() {
  const input = h("input", { type: "password", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": "key-hint" });
  const outcome = h("div", { role: "status" });
  const tell = (words) => {
    outcome.replaceChildren(note("plain", words));
    dispatchEvent(new Event("ofp-key"));
  };
  const form = h("form", { onsubmit: (event) => {
    event.preventDefault();
    key.set(input.value.trim());
    input.value = "";
    tell("The key is kept until this tab is closed, or until it is forgotten here.");
  } },
    h("label", null, "Key of a principal", input,
      h("span", { class: "hint", id: "key-hint" }, "It begins with ofp_. With ofp up, the file keys/console.key in the home folder has one. It is sent to this service alone, in a header, and never stands in an address.")),
    h("div", { class: "row" },
      h("button", { type: "submit", class: "first" }, "Use this key"),
      h("button", { type: "button", onclick: () => { key.forget(); tell("This tab has no key now."); } }, "Forget the key")));
  return [h("p", null, key.get() ? "This tab has a key. Another takes its place." : "This tab has no key: only health is shown without one."), form, outcome];
}
