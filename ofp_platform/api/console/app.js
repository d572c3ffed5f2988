// Pages by the part of the address behind '#': moved between without loading anything again.

import { h, link, badge } from "/console/dom.js";
import { key } from "/console/api.js";
import { follow, onSample } from "/console/history.js";
import { refused } from "/console/refusals.js";
import { healthPage } from "/console/page_health.js";
import { featuresPage } from "/console/page_features.js";
import { snapshotPage, snapshotsPage } from "/console/page_snapshot.js";
import { explanationPage } from "/console/page_explanation.js";
import { differencePage } from "/console/page_difference.js";
import { cataloguePage } from "/console/page_catalogue.js";
import { casePage } from "/console/page_case.js";
import { casesPage } from "/console/page_cases.js";
import { decisionPage, decisionsPage } from "/console/page_decisions.js";
import { comparisonPage, parityPage } from "/console/page_parity.js";
import { buildPage, buildsPage } from "/console/page_builds.js";
import { datasetPage, datasetsPage } from "/console/page_datasets.js";
import { operationsPage } from "/console/page_operations.js";
import { posturePage } from "/console/page_posture.js";
import { failuresPage } from "/console/page_failures.js";
import { keyPage } from "/console/page_key.js";

// name in the address: [title, how the page is made, its word in the menu]
const PAGES = {
  health: ["Health", healthPage, "Health"],
  cases: ["Cases", casesPage, "Cases"],
  case: ["Case", casePage, null],
  decisions: ["Decisions", decisionsPage, "Decisions"],
  decision: ["Decision", decisionPage, null],
  features: ["Ask", featuresPage, "Ask"],
  snapshots: ["Snapshots", snapshotsPage, "Snapshots"],
  snapshot: ["Snapshot", snapshotPage, null],
  events: ["Events behind a value", explanationPage, null],
  difference: ["Compare", differencePage, "Compare"],
  catalogue: ["Groups", cataloguePage, "Groups"],
  parity: ["Parity", parityPage, "Parity"],
  comparison: ["Comparison", comparisonPage, null],
  builds: ["Builds", buildsPage, "Builds"],
  build: ["Build", buildPage, null],
  datasets: ["Datasets", datasetsPage, "Datasets"],
  dataset: ["Dataset", datasetPage, null],
  operations: ["Pack operations", operationsPage, "Packs"],
  posture: ["Posture of deciding", posturePage, "Posture"],
  failures: ["Apply failures", failuresPage, "Failures"],
  key: ["Key", keyPage, null],
};
const MENU_OF = { case: "cases", decision: "decisions", snapshot: "snapshots", events: "snapshots", comparison: "parity", build: "builds", dataset: "datasets" };

const main = document.getElementById("main");
let leaving = [];
let turn = 0;

function place() {
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  try {
    return [name || "health", ...rest.map(decodeURIComponent)];
  } catch {
    return ["", ""];
  }
}

async function show(moves) {
  const mine = ++turn;
  for (const leave of leaving) leave();
  leaving = [];
  const target = location.hash;
  const [name, ...rest] = place();
  const [title, make] = Object.hasOwn(PAGES, name) ? PAGES[name] : ["No such page", null];
  for (const entry of document.querySelectorAll("#pages a")) {
    if (entry.dataset.page === (MENU_OF[name] ?? name)) entry.setAttribute("aria-current", "page");
    else entry.removeAttribute("aria-current");
  }
  document.title = `${title} – Console`;
  const heading = h("h1", { tabindex: "-1" }, title);
  const body = h("div", { "aria-busy": "true" }, h("p", { class: "muted" }, "Loading…"));
  main.replaceChildren(heading, body);
  main.dataset.ready = "";
  if (moves) heading.focus();
  const controller = new AbortController();
  leaving.push(() => controller.abort());
  let content;
  try {
    if (make === null) throw new Error("there is no page of this name; use the menu.");
    content = await make(rest, { signal: controller.signal, onLeave: (leave) => leaving.push(leave), announce });
  } catch (error) {
    if (error.name === "AbortError") return;
    content = refused(error);
  }
  if (mine !== turn) return;
  body.replaceChildren(...[content].flat(Infinity).filter(Boolean));
  body.removeAttribute("aria-busy");
  main.dataset.ready = target || "#"; // which page is loaded: empty while none is
  announce(`${title} is loaded`);
}

function announce(words) {
  document.getElementById("announcer").textContent = words;
}

const THEMES = ["system", "light", "dark"];

function applyTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  document.getElementById("theme").textContent = `Theme: ${theme}`;
}

function savedTheme() {
  const theme = localStorage.getItem("ofp-console-theme");
  return THEMES.includes(theme) ? theme : "system";
}

document.getElementById("theme").addEventListener("click", () => {
  const theme = THEMES[(THEMES.indexOf(savedTheme()) + 1) % THEMES.length];
  localStorage.setItem("ofp-console-theme", theme);
  applyTheme(theme);
});
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the part behind '#' names the page
  main.focus();
});
document.getElementById("pages").append(
  ...Object.entries(PAGES).filter(([, page]) => page[2]).map(([name, page]) => h("li", null, link([name], page[2], { "data-page": name }))));
onSample(({ health }) => {
  const word = health?.state ?? "NO ANSWER";
  const shown = badge(word, health ? undefined : "bad");
  shown.id = "state";
  document.getElementById("state").replaceWith(shown);
});
function showKey() {
  document.getElementById("who").textContent = key.get() ? "Change key" : "Enter key";
}
addEventListener("ofp-key", showKey);
addEventListener("hashchange", () => show(true));
applyTheme(savedTheme());
showKey();
show(false);
follow();
