// Learning from corrections, playlists, and the report of a run.

import { attempt, call, finished, get, jobOf } from "./api.js";
import { showOnly } from "./clip_list.js";
import { $, count, el, say } from "./dom.js";
import { on, readModels, state, useModel } from "./state.js";

const learning = { running: false, result: null };

const score = (value) => (typeof value === "number" ? value.toFixed(3) : String(value ?? "–"));

function scoreTable({ before, after }) {
  const names = Object.keys({ ...before, ...after })
    .filter((name) => typeof (after ?? before)[name] === "number");
  return el("table", {}, el("thead", {}, el("tr", {},
    ["score", "before", "after"].map((text) => el("th", { scope: "col" }, text)))),
  el("tbody", {}, names.map((name) => el("tr", {},
    el("th", { scope: "row" }, name.replaceAll("_", " ")),
    el("td", {}, score(before?.[name])), el("td", {}, score(after?.[name]))))));
}

function resultOf(result) {
  const [low, high] = Array.isArray(result.interval) ? result.interval : [];
  return [el("p", { className: result.enough ? "good" : "note" }, result.enough
    ? "There are enough corrections to say." : "There are not enough corrections to say."),
  scoreTable(result), low === undefined ? "" : el("p", { className: "soft" },
    `Difference, 95 % interval: ${score(low)} to ${score(high)}, from ${result.n_corrections} corrections.`),
  el("p", {}, result.text),
  state.model?.name === result.model ? el("p", { className: "soft" }, "This model is in use.")
    : el("button", { className: "main", onclick: () => attempt(() => useModel(result.model)) },
      `Use ${result.model}`)];
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

function showLearn() {
  const panel = $("#learn");
  const corrected = [...state.clips.values()].filter((clip) => clip.correction).length;
  const old = panel.querySelector("input")?.value;
  const name = el("input", { id: "learn-name", value: old ?? "mine", required: true });
  panel.replaceChildren(el("h2", {}, "Learn from the corrections"),
    el("p", { className: "soft" }, `${count(corrected, "corrected clip")}. The heads are `
      + "trained again on stored features: no sound is read. The scores are cross-validated."),
    el("div", { className: "row" }, el("label", { className: "field" }, "Name of the model ", name),
      el("button", { id: "learn-button", className: "main", disabled: learning.running || !corrected,
        onclick: () => learn(name.value.trim() || "mine") }, "Learn")),
    learning.running ? el("progress", { max: 1, value: 0, ariaLabel: "Progress of learning" }) : "",
    ...(learning.result ? resultOf(learning.result) : []),
    el("p", { className: "soft" }, state.model?.expected ?? ""));
}

function cell(report, row, column) {
  const ids = report.confusion.ids[row][column];
  const [actual, guess] = [row, column].map((i) => report.confusion.classes[i]);
  const most = Math.max(1, ...report.confusion.counts[row]);
  const button = el("button", { disabled: !ids.length, ariaLabel:
    `true ${actual}, predicted ${guess}: ${ids.length}`,
  onclick: () => { showOnly(ids, `true ${actual}, predicted ${guess}`); toLibrary(); } },
  String(report.confusion.counts[row][column]));
  button.style.setProperty("--share", report.confusion.counts[row][column] / most);
  return el("td", { className: row === column ? "right" : "" }, button);
}

const toLibrary = () => $("#tabs [data-view=library]").click();

async function showReport() {
  let report;
  try {
    report = await get("report");
  } catch {
    return; // no run was opened
  }
  $("#tabs [data-view=report]").hidden = false;
  const { classes } = report.confusion ?? { classes: [] };
  $("#report").replaceChildren(el("h2", {}, "Report of the run"),
    el("p", {}, report.expected ?? ""),
    classes.length ? el("div", { className: "scroll" }, el("table", { className: "confusion" },
      el("caption", {}, "Rows: true class. Columns: predicted. A cell lists its clips."),
      el("thead", {}, el("tr", {}, el("td", {}),
        classes.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, classes.map((name, row) => el("tr", {}, el("th", { scope: "row" }, name),
        classes.map((_, column) => cell(report, row, column))))))) : "",
    el("button", { disabled: !report.hard?.length, onclick: () => {
      showOnly(report.hard, `${report.hard.length} hard clips`);
      toLibrary();
    } }, "List the hard clips"));
}

const dialog = $("#playlist-dialog");
$("#playlist-button").addEventListener("click", () => {
  if (!state.order.length) return say("The list is empty: no playlist to make.", true);
  const all = state.order.length === state.clips.size;
  $("#playlist-text").textContent = `${state.order.length} clips: ${all ? "the whole library"
    : state.only?.text ?? "those that the filters show"}, in the list's order.`;
  return dialog.showModal();
});
dialog.addEventListener("close", () => {
  if (dialog.returnValue !== "save") return;
  const [name, format] = ["name", "format"].map((part) => $(`#playlist-${part}`).value.trim());
  attempt(async () => {
    const made = await call("POST", "playlists", { ids: state.order, name, format });
    const url = URL.createObjectURL(new Blob([made.text], { type: "application/octet-stream" }));
    el("a", { href: url, download: `${name}.${format}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    say(`Playlist of ${state.order.length} clips: ${made.file}`);
  });
});

$("#model").addEventListener("change", (event) => attempt(() => useModel(event.target.value)));
on("model", () => {
  $("#model").replaceChildren(...state.models.map((model) => el("option",
    { value: model.name, selected: model === state.model }, model.name)));
  showLearn();
});
on("order clips", () => {
  if (!$("#learn").hidden && !$("#learn").contains(document.activeElement)) showLearn();
});
export { showLearn, showReport };
