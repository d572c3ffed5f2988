// Health, asked for every few seconds while the console is open.

import { ask } from "/console/api.js";

const [EVERY, MOST] = [5_000, 720];
export const samples = [];
const listeners = new Set();

export function onSample(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

async function sample() {
  let health = null;
  let refusal = null;
  try {
    health = await ask("/health", { accept: [503] });
  } catch (error) {
    refusal = error;
  }
  const lag = health?.partitions.length ? health.partitions.reduce((sum, one) => sum + one.lag_records, 0) : null;
  samples.push({ at: Date.now(), health, refusal, lag, age: health?.watermark_age_seconds ?? null });
  if (samples.length > MOST) samples.shift();
  for (const listener of [...listeners]) listener(samples.at(-1));
}

export async function follow() {
  for (;;) {
    if (!document.hidden || samples.length === 0) await sample();
    await new Promise((resolve) => setTimeout(resolve, EVERY));
  }
}
