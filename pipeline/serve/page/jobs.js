// Uploads and the server's jobs, with progress, cancel and errors.

import { attempt, call, get, jobOf, pause } from "./api.js";
import { $, clock, count, el, say } from "./dom.js";

const panel = $("#jobs");
const sends = []; // {file, state, text} of uploads, in order
let jobs = [];
let reading = false;

const alive = (job) => job.state === "waiting" || job.state === "running";

function jobRow(job) {
  const share = job.total ? job.done / job.total : 0;
  const left = job.seconds_left ? `, ${clock(job.seconds_left)} left` : "";
  const failed = job.failed ? `, ${job.failed} failed` : "";
  return el("li", { className: job.state }, el("span", { className: "name" },
    `${job.kind}: ${job.done} of ${job.total}${failed}${left}`),
  el("span", { className: "state soft" }, job.state),
  el("progress", { value: share, max: 1, ariaLabel: `Progress of ${job.kind}` }),
  alive(job) ? el("button", { onclick: () => attempt(() => call("DELETE", `jobs/${job.id}`))
    .then(watchJobs), ariaLabel: `Cancel ${job.kind}` }, "Cancel") : "",
  job.message ? el("p", { className: job.failed || job.state === "failed" ? "error" : "soft" },
    job.message) : "");
}

function sendRow(sent) {
  return el("li", { className: sent.state }, el("span", { className: "name" }, sent.file.name),
    el("span", { className: "state soft" }, sent.state),
    sent.text ? el("p", { className: "error" }, sent.text)
      : el("progress", { ariaLabel: `Upload of ${sent.file.name}` }));
}

function show() {
  const open = sends.filter((sent) => sent.state !== "sent");
  const list = jobs.toReversed().slice(0, 30);
  const busy = list.filter(alive).length + open.filter((sent) => !sent.text).length;
  $("#job-count").textContent = busy ? ` ${busy}` : "";
  panel.replaceChildren(el("h2", {}, "Jobs"),
    open.length || list.length ? "" : el("p", { className: "hint" },
      "Nothing runs. Drop files or a folder on the page to predict them."),
    el("ul", { className: "jobs" }, open.slice(0, 50).map(sendRow), list.map(jobRow)),
    open.some((sent) => sent.text) ? el("button", { onclick: () => {
      sends.splice(0, sends.length, ...sends.filter((sent) => !sent.text));
      show();
    } }, "Clear errors") : "");
}

/** Read the jobs until none is at work. */
export async function watchJobs() {
  if (reading) return;
  reading = true;
  try {
    do {
      jobs = (await get("jobs")).jobs;
      if (!panel.contains(document.activeElement)) show();
      else if (!jobs.some(alive)) show();
      if (jobs.some(alive)) await pause(1);
    } while (jobs.some(alive));
  } catch { /* the banner tells that the server is gone */ }
  reading = false;
}

async function sendFile(sent) {
  sent.state = "sending";
  for (;;) {
    try {
      await call("POST", `clips?name=${encodeURIComponent(sent.file.name)}`, undefined, sent);
      sent.state = "sent";
      return watchJobs();
    } catch (error) {
      if (error.status === 429) {
        await pause(error.wait); // the queue is full: wait for room
        continue;
      }
      Object.assign(sent, { state: "failed", text: error.message });
      return say(error.message, true);
    }
  }
}

/** Upload files, two at a time; each error is shown at its file. */
export async function sendFiles(files) {
  const fresh = [...files].map((file) => ({ file, state: "waiting", text: "" }));
  if (!fresh.length) return;
  sends.push(...fresh);
  say(`${count(fresh.length, "file")} to send and predict`);
  const rest = [...fresh];
  const work = async () => {
    while (rest.length) {
      await sendFile(rest.shift());
      show();
    }
  };
  await Promise.all([work(), work()]);
}

/** Return the files of a dropped item: itself, or everything in the folder. */
async function filesOf(entry) {
  if (entry.isFile) return [await new Promise((done, fail) => { entry.file(done, fail); })];
  const reader = entry.createReader();
  const files = [];
  for (;;) {
    const some = await new Promise((done, fail) => { reader.readEntries(done, fail); });
    if (!some.length) return files.filter((file) => !file.name.startsWith("."));
    for (const inner of some) files.push(...await filesOf(inner));
  }
}

const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
addEventListener("drop", async (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  document.body.classList.remove("dropping");
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry())
    .filter(Boolean);
  const plain = [...event.dataTransfer.files];
  const files = entries.length ? (await Promise.all(entries.map(filesOf))).flat() : plain;
  sendFiles(files);
});

for (const name of ["files", "directory"]) {
  $(`#${name}`).addEventListener("change", (event) => {
    sendFiles(event.target.files);
    event.target.value = "";
    $("#add-dialog").close();
  });
}
$("#add").addEventListener("click", () => $("#add-dialog").showModal());
$("#add-dialog").addEventListener("close", async () => {
  const path = $("#path").value.trim();
  if ($("#add-dialog").returnValue !== "path" || !path) return;
  const job = await attempt(() => call("POST", "jobs", { paths: [path] }));
  if (job) say(`${path}: ${count(jobOf(job).total ?? 0, "clip")} to predict`);
  watchJobs();
});
$("#path").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  $("#path-button").click();
});
show();
