// What went wrong, and what to do about it.

import { h, note, link } from "/console/dom.js";
import { key } from "/console/api.js";

const WAYS = {
  UNAUTHENTICATED: () => [key.get() ? "This key is not valid, or no longer: enter another." : "This page needs a key of a principal.", h("p", null, link(["key"], "Enter a key"))],
  FORBIDDEN: () => ["The principal of this key lacks the scope for this page: ask an operator for it (ofp principal), or use another key.", h("p", null, link(["key"], "Enter another key"))],
  UNKNOWN_RUN: () => ["Either this key may not read the run that is served here, or nothing was projected of it yet."],
  UNKNOWN_SNAPSHOT: () => ["Look whether the hash is whole, and of this service. A snapshot that was served while answers were not kept cannot be shown."],
  UNKNOWN_CASE: () => ["Look whether the id is whole, and of the run that is served here.", h("p", null, link(["cases"], "All open cases"))],
  CASE_NOT_NOW: () => ["Somebody else was faster: load the page again."],
  UNKNOWN_COMPARISON: () => ["Look whether the id is whole, and of the run that is served here.", h("p", null, link(["parity"], "All comparisons"))],
  UNKNOWN_BUILD_RUN: () => ["Look whether the key is whole, and of the run that is served here.", h("p", null, link(["builds"], "All builds"))],
  UNKNOWN_DATASET: () => ["Look whether name and identity are whole, and of the run that is served here.", h("p", null, link(["datasets"], "All datasets"))],
  STORE_DOWN: () => ["A store behind the service does not answer. The page can be loaded again; ofp doctor says which it is."],
  OVERLOADED: () => ["Others are being answered. Wait a moment and load the page again."],
  NO_ANSWER: () => ["It was stopped, or the network does not reach it. Start it with ofp up or ofp serve, then load the page again."],
};

export function refused(error) {
  const head = error.reason ? `${error.message} (${error.reason})` : `The page could not be made: ${error.message}`;
  const ways = WAYS[error.reason]?.() ?? (error.status >= 500 ? ["The same may succeed later: load the page again."] : []);
  const shown = note("bad", h("p", null, h("b", null, head)), ...ways);
  shown.setAttribute("role", "alert");
  return shown;
}
