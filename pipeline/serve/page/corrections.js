// Corrections of the chosen clip. Each is kept in this browser until the server has stored it.

import { call, connection, pause } from "./api.js";
import { $, el, fill, number, percent, say } from "./dom.js";
import { barsOf, choose, colorOf, current, labelsOf, neighbour, notesOf, on, outputs, placeText, rated,
  scaleOf, state, take, task, titleOf } from "./state.js";

const KEPT = "mvemo.corrections";
const panel = $("#clip");
const done = []; // ids in the order of their corrections, for undo
let waiting = JSON.parse(localStorage.getItem(KEPT) ?? "[]"); // {id, body}; body null undoes
let sending = false;

for (const [name, key] of [["annotator", "value"], ["advance", "checked"]]) {
  const [field, stored] = [$(`#${name}`), localStorage.getItem(`mvemo.${name}`)];
  if (stored !== null) field[key] = key === "value" ? stored : stored === "true";
  field.addEventListener("input", () => localStorage.setItem(`mvemo.${name}`, field[key]));
}

function keep(changed) {
  waiting = changed;
  localStorage.setItem(KEPT, JSON.stringify(waiting));
}

/** Send the corrections that wait, in order; those that the server cannot take now stay. */
export async function send() {
  if (sending) return;
  sending = true;
  while (waiting.length) {
    const { id, body } = waiting[0];
    try {
      const clip = await call(body ? "PUT" : "DELETE", `corrections/${id}`, body ?? undefined);
      keep(waiting.slice(1));
      if (!waiting.some((other) => other.id === id)) take(clip);
    } catch (error) {
      if (error.status === 429) await pause(error.wait);
      else if (error.status < 500 && error.status !== 401) {
        keep(waiting.slice(1));
        say(`${id}: the correction was refused: ${error.message}`, true);
      } else break; // sent again when the server is back
    }
  }
  sending = false;
}

/** Return the clip with the corrections that the server does not have yet. */
export function withWaiting(clip) {
  const last = waiting.findLast(({ id }) => id === clip.id);
  return last ? { ...clip, correction: last.body } : clip;
}

const isReady = (clip) => clip && (clip.state === "done" || clip.correction);
const valueOf = ({ correction, values }, name) => correction?.values?.[name] ?? values[name].value;

/** Return what holds for a clip now: label, labels or values, by a person or predicted. */
function answerOf(clip) {
  if (task() === "multilabel") return { labels: labelsOf(clip) };
  if (!rated()) return { label: labelsOf(clip)[0] };
  return { values: Object.fromEntries(barsOf(clip).map(({ name }) => [name, valueOf(clip, name)])) };
}

function store(change, text, last = false) {
  const clip = current();
  const body = { annotator: $("#annotator").value.trim(), comment: clip.correction?.comment ?? "",
    unsure: false, ...answerOf(clip), ...change };
  done.push(clip.id);
  keep([...waiting, { id: clip.id, body }]);
  take({ ...clip, correction: body });
  send();
  say(`${titleOf(clip)}: ${text}`);
  if (last && $("#advance").checked) choose(neighbour(1), !$("#media").paused);
}

/** Correct the chosen clip to the output with this number: a class, or a tag to switch. */
export function correct(at) {
  const [clip, name] = [current(), outputs()[at]];
  if (!clip || !name) return;
  const labels = labelsOf(clip);
  if (rated()) panel.querySelectorAll("input[type=range]")[at]?.focus();
  else if (task() === "multiclass") store({ label: name }, name, true);
  else {
    const chosen = outputs().filter((label) => labels.includes(label) !== (label === name));
    store({ labels: chosen }, chosen.join(", ") || "no tag");
  }
}

export const confirm = () => isReady(current()) && store({}, "right as it is", true);

export function markUnsure() {
  if (!isReady(current())) return;
  const unsure = !current().correction?.unsure;
  store({ unsure }, unsure ? "unsure" : "sure");
}

export function undo() {
  const clip = state.clips.get(done.pop() ?? (current()?.correction && state.current));
  if (!clip) return say("Nothing to undo.");
  choose(clip.id);
  keep([...waiting, { id: clip.id, body: null }]);
  say(`${titleOf(clip)}: undone`);
  return send();
}

function rate(values) {
  store({ values: { ...answerOf(current()).values, ...values } },
    Object.entries(values).map(([name, value]) => `${name} ${number(value)}`).join(", "));
}

/** Make a plane in which a click rates both axes of the model. */
function plane(clip) {
  const { axes } = state.model;
  if (!axes.every((axis) => outputs().includes(axis))) return "";
  const shares = axes.map((axis) => [valueOf(clip, axis), ...scaleOf(axis)])
    .map(([value, low, high]) => (value - low) / (high - low));
  return el("div", { id: "rating-plane", title: "Click to rate", onclick: (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const at = [(event.clientX - box.left) / box.width, (box.bottom - event.clientY) / box.height];
    rate(Object.fromEntries(axes.map((axis, i) => {
      const [low, high] = scaleOf(axis);
      return [axis, Number((low + at[i] * (high - low)).toFixed(3))];
    })));
  } }, el("i", { "left%": shares[0], "bottom%": shares[1] }), el("span", {}, `${axes[1]} ↑`),
  el("span", {}, `${axes[0]} →`));
}

function slider(clip, name, at) {
  const [min, max] = scaleOf(name);
  const value = valueOf(clip, name);
  return el("label", { className: "choice", color: colorOf(name) }, el("kbd", {}, at + 1), el("span", {}, name),
    el("input", { type: "range", min, max, step: (max - min) / 100, value,
      onchange: ({ target }) => rate({ [name]: Number(target.value) }) }),
    el("span", { className: "soft" }, number(value)));
}

function choice(clip, name, at) {
  const share = clip.proba?.[name];
  return el("button", { className: clip.set?.includes(name) ? "choice in-set" : "choice",
    ariaPressed: String(labelsOf(clip).includes(name)), onclick: () => correct(at) },
  el("kbd", {}, at < 9 ? at + 1 : "·"), el("span", {}, name),
  el("span", { className: "meter" }, el("i", { "width%": share ?? 0, color: colorOf(name) }),
    el("em", { className: "tick", hidden: true, "data-name": name })),
  el("span", { className: "soft" }, share === undefined ? "–" : percent(share)));
}

function factsText({ artist, map, doubt, set, correction: by }, place) {
  return [artist, map && !rated() && place, doubt != null && `uncertainty ${percent(doubt)}`,
    set && `may be ${set.join(", ") || "none of them"}`,
    by && `corrected ${by.unsure ? "unsure, " : ""}by ${by.annotator || "unnamed"}`]
    .filter(Boolean).join(" · ");
}

function show() {
  const clip = current();
  if (!clip) return;
  const [focus, fields] = [document.activeElement, () => [...panel.querySelectorAll("button, input")]];
  const at = fields().indexOf(focus);
  fill($("#facts"), el("h2", {}, titleOf(clip)),
    el("p", { className: "soft" }, factsText(clip, placeText(clip))),
    clip.error && el("p", { className: "error" }, clip.error),
    notesOf(clip).map((note) => el("p", { className: "note" }, note)),
    rated() && clip.values && plane(clip));
  const make = rated() ? clip.values && slider : choice;
  fill($("#choices"), make && outputs().map((name, i) => make(clip, name, i)));
  for (const name of ["confirm", "unsure", "comment"]) $(`#${name}`).disabled = !isReady(clip);
  $("#unsure").ariaPressed = String(Boolean(clip.correction?.unsure));
  if (focus.id !== "comment") $("#comment").value = clip.correction?.comment ?? "";
  if (at >= 0) fields()[at]?.focus();
}

on("current changed model", show);
connection.addEventListener("back", send);
setInterval(send, 3000);
for (const [name, work] of Object.entries({ confirm, unsure: markUnsure, undo })) {
  $(`#${name}`).addEventListener("click", work);
}
$("#comment").addEventListener("change", ({ target }) => store({ comment: target.value }, "comment"));
