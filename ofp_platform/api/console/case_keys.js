// Single keys of a page, as long as nobody types into a field and no other key is held.

const FIELDS = new Set(["INPUT", "SELECT", "TEXTAREA"]);

export function onKeys(keys) {
  const listener = (event) => {
    const isFree = !event.ctrlKey && !event.altKey && !event.metaKey && !event.isComposing;
    if (!isFree || (FIELDS.has(event.target.tagName) && event.key !== "Escape") || !Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    keys[event.key]();
  };
  document.addEventListener("keydown", listener);
  return () => document.removeEventListener("keydown", listener);
}

// A name for a request: sent again under it, it is done once.
export const newReference = () => "console/" + [...crypto.getRandomValues(new Uint8Array(16))].map((one) => one.toString(16).padStart(2, "0")).join("");
