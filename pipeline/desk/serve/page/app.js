// Start of the page: views, keys, and the loops that follow the server.

import { attempt, connection, get, pause } from "./api.js";
import { confirm, correct, markUnsure, openLibrary, undo, withWaiting } from "./corrections.js";
import { $, el } from "./dom.js";
import { watchJobs } from "./jobs.js";
import "./mood_map.js";
import { enlarge, explain, followEmotion, jumpToTurn, listSimilar, move, seekBy, toggle } from "./player.js";
import { showLearn, showReport } from "./results.js";
import { choose, follow, neighbour, readModels, state } from "./state.js";

const KEYS = [
  ["1 – 9", "correct to this class, switch this tag, or go to this rating"],
  ["y", "right as it is"], ["n", "unsure"], ["u", "undo the last correction"],
  ["c", "write a comment"], ["↑ ↓", "previous or next clip"],
  ["Page ↑ ↓, Home, End", "move in the list"], ["space", "play or pause"],
  ["← →", "seek 5 seconds"], ["e", "emotion over time"], ["t", "jump to the largest turn"],
  ["w", "why: what drove the decision"], ["s", "similar clips"], ["v", "enlarge the video"], ["/", "search"],
  ["m", "mood map: arrow keys move, Enter plays, Shift with arrow keys draws a rectangle"],
  ["?", "this help"],
];

const ACTIONS = {
  y: confirm, n: markUnsure, u: undo, e: followEmotion, t: jumpToTurn, w: explain, s: listSimilar, v: enlarge,
  c: () => { showView("clip"); $("#comment")?.focus(); },
  m: () => { showView("map"); $("#dots").focus(); },
  "/": () => { showView("library"); $("#search").focus(); },
  "?": () => $("#help-dialog").showModal(), " ": toggle,
  ArrowUp: () => move(-1), ArrowDown: () => move(1),
  ArrowLeft: () => seekBy(-5), ArrowRight: () => seekBy(5),
};
const IN_LIST = { PageUp: -10, PageDown: 10, Home: -1e9, End: 1e9 };

/** Show a view; beside the library, on a narrow screen in its place. */
function showView(name) {
  document.body.dataset.view = name;
  if (name !== "library" && name !== "clip") document.body.dataset.tab = name;
  for (const button of document.querySelectorAll("#tabs button")) {
    button.setAttribute("aria-current", button.dataset.view === name
      || button.dataset.view === document.body.dataset.tab ? "true" : "false");
    button.classList.toggle("chosen", button.dataset.view === name);
  }
  for (const tab of ["map", "learn", "report", "jobs"]) {
    $(`#${tab}`).hidden = tab !== document.body.dataset.tab;
  }
  if (name === "learn") showLearn();
  if (name === "jobs") watchJobs();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
  const { target, key } = event;
  if (target.matches("input:not([type=checkbox], [type=range], [type=file]), select")) {
    if (key === "Escape" || (key === "Enter" && target.tagName === "INPUT")) $("#list").focus();
    return;
  }
  // Space presses the button that has the focus, and arrow keys move a slider.
  if (key === " " && target.closest("button, input")) return;
  if (key.startsWith("Arrow") && target.matches("input")) return;
  if (key in IN_LIST && target === $("#list")) choose(neighbour(IN_LIST[key]));
  else if (key === "Enter" && target === $("#list")) toggle();
  else if (/^[1-9]$/.test(key)) correct(Number(key) - 1);
  else if (key in ACTIONS) ACTIONS[key]();
  else return;
  event.preventDefault();
}

/** Read the folder's name and the models; the banner tells if the server does not answer. */
async function greet() {
  const { folder, library, version } = await get("health");
  state.folder = folder ?? "";
  $("#folder").textContent = `\u200e${folder ?? ""}`; // a mark, so that the start is cut off
  $("#folder").title = `mvemo ${version}: ${folder ?? ""}`;
  await readModels();
  openLibrary(library);
  watchJobs();
}

for (const button of document.querySelectorAll("#tabs button")) {
  button.addEventListener("click", () => showView(button.dataset.view));
}
$("#help-button").addEventListener("click", ACTIONS["?"]);
$("#help-keys").append(...KEYS.flatMap(([key, text]) => [el("dt", {}, key), el("dd", {}, text)]));
addEventListener("keydown", onKey);
connection.addEventListener("back", () => attempt(greet));
showView(matchMedia("(max-width: 760px)").matches ? "library" : "map");
while (!await greet().then(() => true, () => pause(2))) ; // wait for the server
follow(withWaiting);
showReport();
