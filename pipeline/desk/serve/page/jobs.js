// Uploads and the server's jobs, with progress, cancel and errors.

import { attempt, call, finished, get, jobOf, pause } from "./api.js";
import { $, clock, count, el, fill, say } from "./dom.js";

const panel = $("#jobs");
let sends = []; // {file, state, text} of the uploads that are not done
let jobs = [];
let reading = false;

const isAlive = ({ state }) => state === "waiting" || state === "running";

function makeRow({ text, state, share, error, cancel }) {
  return el("li", {}, el("span", {}, text), el("span", { className: "soft" }, state),
    isAlive({ state }) && el("progress", { value: share, max: 1, ariaLabel: text }),
    cancel && isAlive({ state }) && el("button", { onclick: cancel, ariaLabel: `Cancel ${text}` }, "Cancel"),
    error && el("p", { className: "error" }, error));
}

const KINDS = { scan: "Look for files in", predict: "Predict", timeline: "Timeline of",
  explain: "Reasons for", similar: "Clips similar to", learn: "Learn" };

export function jobRow(job) {
  const left = job.seconds_left ? `, ${clock(job.seconds_left)} left` : "";
  const failed = job.failed ? `, ${job.failed} failed` : "";
  const done = job.kind === "predict" ? `: ${job.done} of ${job.total}` : ` ${job.name}`;
  return makeRow({ text: `${KINDS[job.kind]}${done}${failed}${left}`, state: job.state,
    share: job.total ? job.done / job.total : 0, error: job.message,
    cancel: ({ currentTarget }) => {
      currentTarget.disabled = true;
      attempt(() => call("DELETE", `jobs/${job.id}`)).then(watchJobs);
    } });
}

function show() {
  const list = jobs.toReversed().slice(0, 30);
  $("#job-count").textContent = [...list, ...sends].filter(isAlive).length || "";
  fill(panel, el("h2", {}, "Jobs"), el("ul", { className: "jobs" },
    sends.slice(0, 50).map(({ file, state, text }) => makeRow({ text: file.name, state, share: 0, error: text })),
    list.map(jobRow)),
  sends.some((sent) => sent.text) && el("button", { onclick: () => {
    sends = sends.filter((sent) => !sent.text);
    show();
  } }, "Clear errors"), !(sends.length + list.length) && el("p", { className: "hint" },
    "Nothing runs. Drop files or a folder on the page to predict them."));
}

/** Read the jobs until none is at work. */
export async function watchJobs() {
  if (reading) return;
  reading = true;
  try {
    do {
      jobs = (await get("jobs")).jobs;
      // A button that is in use is not taken away under the finger.
      if (!panel.contains(document.activeElement) || !jobs.some(isAlive)) show();
      if (jobs.some(isAlive)) await pause(1);
    } while (jobs.some(isAlive));
  } catch { /* the banner tells that the server is gone */ }
  reading = false;
}

async function sendFile(sent) {
  sent.state = "running";
  show();
  try {
    await call("POST", `clips?name=${encodeURIComponent(sent.file.name)}`, undefined, sent);
    sends = sends.filter((other) => other !== sent);
  } catch (error) {
    if (error.status === 429) return pause(error.wait).then(() => sendFile(sent)); // queue is full
    Object.assign(sent, { state: "failed", text: error.message });
    say(error.message, true);
  }
  show();
  return watchJobs();
}

/** Upload files, two at a time; each error is shown at its file. */
async function sendFiles(files) {
  const fresh = [...files].filter((file) => !file.name.startsWith("."))
    .map((file) => ({ file, state: "waiting", text: "" }));
  sends.push(...fresh);
  say(`${count(fresh.length, "file")} to send and predict`);
  const work = async () => { while (fresh.length) await sendFile(fresh.shift()); };
  await Promise.all([work(), work()]);
}

/** Return the files of a dropped item: itself, or everything in the folder. */
async function filesOf(entry) {
  const ask = (object, name) => new Promise((found, fail) => { object[name](found, fail); });
  if (entry.isFile) return [await ask(entry, "file")];
  const [reader, files] = [entry.createReader(), []];
  for (let some = [0]; some.length; files.push(...(await Promise.all(some.map(filesOf))).flat())) {
    some = await ask(reader, "readEntries");
  }
  return files;
}

// Nothing of the page itself is to be dropped on it.
addEventListener("dragstart", (event) => event.preventDefault());
for (const [name, shown] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  addEventListener(name, async (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.toggle("dropping", shown);
    if (name !== "drop") return;
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
    const plain = [...event.dataTransfer.files];
    sendFiles(entries.length ? (await Promise.all(entries.map(filesOf))).flat() : plain);
  });
}
for (const name of ["files", "directory"]) {
  $(`#${name}`).addEventListener("change", ({ target }) => {
    sendFiles(target.files);
    target.value = "";
    $("#add-dialog").close();
  });
}
$("#rescan").addEventListener("click", () => attempt(async () => {
  const { result } = await finished(await call("POST", "scan"));
  say(result ? `${count(result, "clip")} to predict` : "Nothing new in the folder");
  watchJobs();
}));
$("#add").addEventListener("click", () => $("#add-dialog").showModal());
$("#add-dialog").addEventListener("close", async () => {
  const path = $("#path").value.trim();
  if ($("#add-dialog").returnValue !== "path" || !path) return;
  const job = await attempt(() => call("POST", "jobs", { paths: [path] }));
  if (job) say(`${path}: ${count(jobOf(job).total ?? 0, "clip")} to predict`);
  watchJobs();
});
show();
