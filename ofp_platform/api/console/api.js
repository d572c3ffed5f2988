// Questions to the service that sent this page. The key is kept for this tab alone, and goes out in one header and nowhere else.

const NAME = "ofp-console-key";

export const key = {
  get: () => sessionStorage.getItem(NAME),
  set: (value) => sessionStorage.setItem(NAME, value),
  forget: () => sessionStorage.removeItem(NAME),
};

export class Refusal extends Error {
  constructor(status, reason, message) {
    super(message);
    this.status = status;
    this.reason = reason;
  }
}

export async function ask(path, { body, signal, accept = [] } = {}) {
  const headers = {};
  if (key.get()) headers.authorization = `Bearer ${key.get()}`;
  if (body) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", body: body && JSON.stringify(body), headers, signal, cache: "no-store", credentials: "omit", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "NO_ANSWER", "The service does not answer.");
  }
  let answer;
  try {
    answer = await response.json();
  } catch {
    throw new Refusal(response.status, "NO_JSON", "The answer is not JSON.");
  }
  if (!response.ok && !(accept.includes(response.status) && answer.kind !== "error_response")) {
    throw new Refusal(response.status, answer.reason, answer.message);
  }
  return answer;
}

export const query = (values) => {
  const parts = Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return parts.length ? "?" + new URLSearchParams(parts) : "";
};
