// Learning from corrections, playlists, and the report of a run.

import { attempt, call, finished, get, jobOf } from "./api.js";
import { showOnly } from "./clip_list.js";
import { $, count, el, fill, say } from "./dom.js";
import { isJudged, on, readModels, state, useModel } from "./state.js";

const learning = { running: false, result: null };

const row = (kind, first, ...rest) => el("tr", {}, el("th", { scope: kind }, first),
  rest.map((text) => el(kind === "col" ? "th" : "td", kind === "col" ? { scope: kind } : {}, text)));

const METRICS = { accuracy: "share of right classes", r2_macro: "share of the ratings' variance explained",
  roc_auc_macro: "share of pairs of clips in the right order" };

function resultOf({ before, after, interval, enough, text, model: folder }) {
  const model = folder.split("/").at(-1);
  const title = after && `${METRICS[after.metric]}, ${count(after.clips, "clip")}`;
  return [el("p", { className: enough ? "good" : "note" },
    `There are ${enough ? "" : "not "}enough corrections to say.`),
  after && el("table", {}, el("thead", {}, row("col", "score", "before", "after")), el("tbody", {},
    row("row", title, before.score.toFixed(3), after.score.toFixed(3)))),
  interval && el("p", { className: "soft" },
    `Difference, 95 % interval: ${interval.map((end) => end.toFixed(3)).join(" to ")}`),
  el("p", {}, text), state.model.name === model ? el("p", { className: "soft" }, "It is in use.")
    : el("button", { className: "main", onclick: () => attempt(() => useModel(model)) },
      `Use ${model}`)];
}

async function learn(name) {
  Object.assign(learning, { running: true, result: null });
  showLearn();
  await attempt(async () => {
    const job = await finished(jobOf(await call("POST", "learn", { name })), ({ done, total }) => {
      $("#learn progress")?.setAttribute("value", total ? done / total : 0);
    });
    learning.result = job.result;
    await readModels();
    say(job.result.text);
  });
  learning.running = false;
  showLearn();
}

export function showLearn() {
  const corrected = [...state.clips.values()].filter(isJudged).length;
  const name = el("input", { id: "learn-name", value: $("#learn-name")?.value ?? "mine" });
  fill($("#learn"), el("h2", {}, "Learn from the corrections"),
    el("p", { className: "soft" }, `${count(corrected, "corrected clip")}. The model is trained `
      + "again without reading the sound again, and tested on corrected clips that it does not know."),
    el("div", { className: "row" }, el("label", { className: "field" }, "Name of the model ", name),
      el("button", { id: "learn-button", className: "main", disabled: learning.running || !corrected,
        onclick: () => learn(name.value.trim() || "mine") }, "Learn")),
    learning.running && el("progress", { max: 1, value: 0, ariaLabel: "Progress of learning" }),
    learning.result && resultOf(learning.result), el("p", { className: "soft" }, state.model?.expected));
}

function list(ids, text) {
  showOnly(ids, text);
  $("#tabs [data-view=library]").click();
}

function cell({ classes, counts, ids }, i, j) {
  const text = `true ${classes[i]}, predicted ${classes[j]}`;
  const button = el("button", { disabled: !counts[i][j], ariaLabel: `${text}: ${counts[i][j]}`,
    onclick: () => list(ids[i][j], text) }, String(counts[i][j]));
  button.style.setProperty("--share", counts[i][j] / Math.max(1, ...counts[i]));
  return el("td", { className: i === j ? "right" : "" }, button);
}

/** Show the report if a run was opened; otherwise the server answers 404. */
export async function showReport() {
  const found = await get("report").catch(() => null);
  if (!found) return;
  $("#tabs [data-view=report]").hidden = false;
  const { confusion, hard, expected } = found;
  fill($("#report"), el("h2", {}, "Report of the run"), el("p", {}, expected),
    confusion && el("table", { className: "confusion" },
      el("caption", {}, "Rows: true class. Columns: predicted. A cell lists its clips."),
      el("thead", {}, row("col", "true", ...confusion.classes)),
      el("tbody", {}, confusion.classes.map((name, i) => el("tr", {}, el("th", { scope: "row" }, name),
        confusion.classes.map((_, j) => cell(confusion, i, j)))))),
    hard?.length > 0 && el("button", { onclick: () => list(hard, `${hard.length} hard clips`) },
      "List the hard clips"));
}

const dialog = $("#playlist-dialog");
let listed = []; // ids in the order shown when the dialog was opened
$("#playlist-button").addEventListener("click", () => {
  if (!state.order.length) return say("The list is empty: no playlist to make.", true);
  const all = state.order.length === state.clips.size;
  listed = state.order;
  $("#playlist-text").textContent = `${count(state.order.length, "clip")}: ${all ? "the whole library"
    : state.only?.text ?? "those that the filters show"}, in the list's order.`;
  return dialog.showModal();
});
dialog.addEventListener("close", () => {
  if (dialog.returnValue !== "save") return;
  const [name, format] = ["name", "format"].map((part) => $(`#playlist-${part}`).value.trim());
  attempt(async () => {
    const made = await call("POST", "playlists", { ids: listed, name, format });
    const url = URL.createObjectURL(new Blob([made.text], { type: "application/octet-stream" }));
    el("a", { href: url, download: `${name}.${format}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    say(`Playlist of ${count(listed.length, "clip")}, copies only once: ${made.file}`);
  });
});

$("#model").addEventListener("change", (event) => attempt(() => useModel(event.target.value)));
on("model", () => {
  $("#model").replaceChildren(...state.models.map((model) => el("option",
    { value: model.name, selected: model === state.model }, model.name)));
  $("#expected").textContent = state.model.expected;
  showLearn();
});
on("order clips", () => {
  if (!$("#learn").hidden && !$("#learn").contains(document.activeElement)) showLearn();
});
