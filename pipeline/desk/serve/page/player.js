// The player: sound or video, waveform, emotion over time in step with it, and reasons.

import { attempt, computed } from "./api.js";
import { showOnly } from "./clip_list.js";
import { $, clock, count, el, fill, number, say, svg } from "./dom.js";
import { jobRow, watchJobs } from "./jobs.js";
import { barsOf, choose, colorOf, current, moodText, neighbour, on, outputs, state, task, titleOf }
  from "./state.js";

const media = $("#media");
const track = $("#track");
let model = null; // name of the model that follows the emotion
let loaded = null; // id of the clip in the player
let timeline = null; // of this clip, once it was asked for
let asked = new AbortController(); // ends the requests of the clip before

const length = () => media.duration || current()?.duration || 0;
const playing = () => !media.paused && !media.ended;

function drawWave({ peaks }) {
  const edge = (sign) => peaks.map((peak, i) => [(i * 1000) / peaks.length, 50 + sign * 47 * peak]);
  $("#wave").replaceChildren(svg("polygon", { points: [...edge(-1), ...edge(1).reverse()].join(" ") }));
}

function load(clip) {
  asked.abort();
  asked = new AbortController();
  [loaded, timeline] = [clip.id, null];
  for (const name of ["wave", "curves", "marks", "reason"]) $(`#${name}`).replaceChildren();
  $("#reason").hidden = true;
  $("#player").className = "";
  document.body.classList.remove("idle");
  document.body.classList.toggle("video", clip.kind === "video");
  media.src = `/media/${clip.id}`;
  // The player works without a picture of the sound.
  computed(`clips/${clip.id}/waveform`, asked).then(drawWave).catch(() => {});
}

/** Draw the probabilities as stacked areas; tags and ratings as lines. */
function drawCurves(windows, end) {
  const rows = windows.map((w) => new Map(barsOf(w).map((bar) => [bar.name, bar.share])));
  const base = windows.map(() => 0);
  const line = (heights) => {
    const middle = windows.map((w, i) => [(500 * (w.start + w.stop)) / end, 99 - 98 * heights[i]]);
    return [[0, middle[0][1]], ...middle, [1000, middle.at(-1)[1]]];
  };
  $("#curves").replaceChildren(...outputs().map((name) => {
    const shares = rows.map((row) => row.get(name) ?? 0);
    if (task() !== "multiclass") {
      return svg("polyline", { points: line(shares).join(" "), stroke: colorOf(name) });
    }
    const below = line(base).reverse();
    shares.forEach((share, i) => { base[i] += share; });
    return svg("polygon", { points: [...line(base), ...below].join(" "), fill: colorOf(name) });
  }));
}

/** Name each run of windows with the same class, and mark the turns. */
function drawMarks(windows, end) {
  const starts = windows.filter((w, i) => w.label !== windows[i - 1]?.label);
  const from = (w) => (w === windows[0] ? 0 : w ? (w.start + w.stop) / 2 / end : 1);
  const names = task() === "multiclass" ? starts.map((w, i) => el("b", { title: w.label,
    "left%": from(w), "width%": from(starts[i + 1]) - from(w), color: colorOf(w.label) }, w.label)) : [];
  $("#marks").replaceChildren(...timeline.changes.map((c) => el("i", { "left%": c.time / end })), ...names);
}

/** Ask for what the server computes for this clip; the button is busy meanwhile. */
async function ask(button, path) {
  const [id, options] = [loaded, asked];
  if (!id) return null;
  const bar = el("ul", { className: "jobs" });
  $("#work").append(bar);
  $(button).setAttribute("aria-busy", "true");
  const found = await attempt(() => computed(`clips/${id}/${path}`, options, (job) => {
    bar.replaceChildren(jobRow(job));
    watchJobs();
  }));
  $(button).removeAttribute("aria-busy");
  bar.remove();
  return id === loaded ? found : null;
}

export async function followEmotion() {
  if (timeline) return timeline;
  const found = await ask("#follow", "timeline");
  const windows = found?.windows.filter((w) => w.proba || w.values);
  if (!windows) return null;
  if (!windows.length) return say("No window of this clip could be predicted.", true);
  timeline = { ...found, windows };
  $("#player").className = "followed";
  const end = length() || windows.at(-1).stop;
  drawCurves(windows, end);
  drawMarks(windows, end);
  step();
  say(`Emotion over time: ${count(windows.length, "window")}, ${count(found.changes.length, "turn")}`);
  return timeline;
}

export async function jumpToTurn() {
  if (!await followEmotion()) return;
  const [turn] = timeline.changes;
  if (!turn) return void say("This clip has no turn: its emotion hardly changes.");
  seek(turn.time);
  say(`Largest turn at ${clock(turn.time)}: ${turn.before} to ${turn.after}`);
}

export async function explain() {
  const found = await ask("#why", "explain");
  if (!found) return;
  fill($("#reason"), el("p", {}, found.text), found.stretches.map((s) => el("button",
    { className: "chip", onclick: () => { seek(s.second); media.play(); } },
    `${clock(s.second)} ${s.modality}, evidence ${number(s.loss)}`)),
  el("button", { ariaLabel: "Close the reasons", onclick: () => { $("#reason").hidden = true; } }, "✕"));
  $("#reason").hidden = false;
}

/** List the clip and those that are most similar, in this order. */
export async function listSimilar() {
  const clip = current();
  const found = await ask("#similar", "similar");
  if (found) showOnly([clip.id, ...found.ids], `similar to ${titleOf(clip)}`, true);
}

export function seek(seconds) {
  media.currentTime = Math.min(Math.max(0, seconds), length());
  step();
}

export const seekBy = (seconds) => seek(media.currentTime + seconds);

export function toggle() {
  if (!current()) choose(neighbour(0), true);
  else if (playing()) media.pause();
  else media.play().catch(() => {});
}

export const move = (by) => choose(neighbour(by), playing());

export function enlarge() {
  $("#enlarge").ariaPressed = String(document.body.classList.toggle("enlarged"));
}

/** Show the position: cursor, clock, and the moods of the window under it. */
function step() {
  const [at, end] = [media.currentTime, length()];
  $("#cursor").style.left = `${end ? (100 * at) / end : 0}%`;
  $("#clock").textContent = `${clock(at)} / ${clock(end)}`;
  const values = { max: Math.round(end), now: Math.round(at), text: `${clock(at)} of ${clock(end)}` };
  for (const [name, value] of Object.entries(values)) track.setAttribute(`aria-value${name}`, value);
  showMoods(at);
  if (playing()) requestAnimationFrame(step);
}

function showMoods(at) {
  if (!current()) return;
  const away = (w) => Math.abs((w.start + w.stop) / 2 - at);
  const window = timeline?.windows.reduce((a, b) => (away(b) < away(a) ? b : a));
  $("#now-mood").textContent = window ? `now: ${moodText(window)}` : moodText(current());
  const shares = new Map(window ? barsOf(window).map((bar) => [bar.name, bar.share]) : []);
  for (const tick of document.querySelectorAll("#clip .tick")) {
    tick.hidden = !window;
    tick.style.left = `${100 * (shares.get(tick.dataset.name) ?? 0)}%`;
  }
}

on("current", () => {
  $("#now-title").textContent = titleOf(current());
  if (current().id !== loaded) load(current());
  step();
});
on("changed compared", () => showMoods(media.currentTime));
on("model", () => { // another model follows the emotion anew
  if (model && model !== state.model.name && current()) load(current());
  model = state.model.name;
});
on("play", () => media.play().catch((error) => {
  if (error.name === "NotAllowedError") say("Press play: the browser waits for a click.");
}));
for (const name of ["play", "pause", "ended", "seeked", "loadedmetadata"]) {
  media.addEventListener(name, () => {
    $("#play").classList.toggle("playing", playing());
    $("#play").ariaLabel = playing() ? "Pause" : "Play";
    step();
  });
}
media.addEventListener("ended", () => choose(neighbour(1), true));
media.addEventListener("error", () => {
  if (loaded) say(`${titleOf(current())}: this browser cannot play it, or the file is gone`, true);
});
track.addEventListener("pointerdown", (event) => {
  const { left, width } = track.getBoundingClientRect();
  seek((length() * (event.clientX - left)) / width);
});
const buttons = { play: toggle, previous: () => move(-1), next: () => move(1), follow: followEmotion,
  turn: jumpToTurn, why: explain, similar: listSimilar, enlarge };
for (const [name, work] of Object.entries(buttons)) $(`#${name}`).addEventListener("click", work);
