// Calls of the server's API; they know whether the server answers.

import { $, say } from "./dom.js";

const BASE = "/api/v1/";
const GONE = "The server does not answer. Corrections are kept here and sent when it is back.";
const LOCKED = "This page has no access now: open the address that mvemo serve printed. "
  + "Corrections are kept here and sent then.";

export class Refused extends Error {}
export const connection = new EventTarget();
export const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

const notes = { server: "", corrections: "" };

/** Show a text of one kind in the banner; without texts the banner is hidden. */
export function note(text, kind = "server") {
  const back = kind === "server" && !text && notes.server;
  notes[kind] = text;
  const [banner, shown] = [$("#banner"), Object.values(notes).filter(Boolean).join(" ")];
  if (banner.textContent !== shown) banner.textContent = shown;
  banner.hidden = !shown;
  if (back) connection.dispatchEvent(new Event("back"));
}

/** Send a request and return the JSON answer; throw `Refused` with the server's line. */
export async function call(method, path, body, { signal, file, seen } = {}) {
  let response;
  try {
    response = await fetch(BASE + path, { method, signal, body: file ?? JSON.stringify(body),
      headers: { ...body && { "Content-Type": "application/json" },
        ...seen && { "If-Match": `"${seen}"` } } });
  } catch (error) {
    if (error.name !== "AbortError" && !file) note(GONE);
    throw file ? new Error(`${file.name}: the upload broke off`) : error;
  }
  note(response.status === 401 ? LOCKED : "");
  const found = await response.json().catch(() => ({}));
  if (response.ok) return response.status === 202 && method === "GET" ? { pending: found } : found;
  throw Object.assign(new Refused(found.error ?? `the server answered ${response.status}`),
    { status: response.status, wait: Number(response.headers.get("Retry-After")) || 2 });
}

export const get = (path, options) => call("GET", path, undefined, options);

/** Wait until a job is done, and return it; throw its message if it failed. */
export async function finished(started, progress, options) {
  for (let job = started; ; job = await get(`jobs/${job.id}`, options)) {
    if (job.state === "done") return job;
    if (job.state === "failed" || job.state === "cancelled") {
      throw Object.assign(new Error(job.message || `${job.kind}: ${job.state}`),
        job.state === "cancelled" && { name: "AbortError" });
    }
    progress?.(job);
    await pause(0.4);
  }
}

export const jobOf = (answer) => (answer.job?.id ? answer.job : { id: answer.job, ...answer });

/** Return an answer that the server computes in a job. */
export async function computed(path, options, progress) {
  for (;;) {
    const found = await get(path, options);
    if (!found.pending) return found;
    await finished(jobOf(found.pending), progress, options);
  }
}

/** Call `work`; show the message of an error in the status line. */
export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    if (error.name !== "AbortError") say(error.message, true);
    return null;
  }
}
