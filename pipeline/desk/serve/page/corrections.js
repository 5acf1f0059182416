// Corrections of the chosen clip. Each is kept in this browser until the server has stored it.

import { call, get, note } from "./api.js";
import { $, el, fill, number, percent, say } from "./dom.js";
import { barsOf, choose, colorOf, current, isJudged, labelsOf, moodText, neighbour, notesOf, on, outputs, placeText,
  rated, readModels, scaleOf, state, take, task, titleOf } from "./state.js";

const panel = $("#clip");
const done = []; // ids in the order of their corrections, for undo
let library = ""; // whose corrections these are
// Changes without an answer: {key, id, body, seen, refused}. `body` null undoes, `seen` is the
// version that the change replaces, and `refused` says why the server did not take it.
let waiting = [];
let sending = false;

for (const [name, key] of [["annotator", "value"], ["advance", "checked"]]) {
  const [field, stored] = [$(`#${name}`), localStorage.getItem(`mvemo.${name}`)];
  if (stored !== null) field[key] = key === "value" ? stored : stored === "true";
  field.addEventListener("input", () => localStorage.setItem(`mvemo.${name}`, field[key]));
}

const kept = () => `mvemo.corrections.${library}`;
const readKept = () => { waiting = JSON.parse(localStorage.getItem(kept()) ?? "[]"); };

function keep(changed) {
  waiting = changed;
  localStorage.setItem(kept(), JSON.stringify(waiting));
}

/** Take the corrections that wait for this library; a server of another one needs a new page. */
export function openLibrary(name) {
  if (library && library !== name) return location.reload();
  library = name;
  readKept();
  return send();
}

/** Send the corrections that wait, in order; those that the server cannot take now stay. */
export async function send() {
  if (sending || !library) return;
  sending = true;
  const skipped = new Set();
  let problem = "";
  try {
    for (let next; (next = waiting.find((w) => !w.refused && !skipped.has(w.id)));) {
      const { id, body, seen } = next;
      try {
        const path = `corrections/${id}`;
        stored(next, await call(body ? "PUT" : "DELETE", path, body ?? undefined, { seen }));
      } catch (error) {
        if ([400, 412, 413, 422].includes(error.status)) await refuse(next, error);
        else if (error.status === 404) skipped.add(id); // not listed yet, or gone
        else {
          if (error.status && error.status !== 401) problem = `Corrections are kept here: ${error.message}`;
          break; // sent again when the server can take them
        }
      }
    }
  } catch { /* the server is gone meanwhile */ }
  note(problem, "corrections");
  sending = false;
}

/** Return the version of a correction that the server sent. */
const versionOf = ({ correction }) => correction?.etag ?? `${library}-none`;

/** Forget a change that the server has; later changes of the clip replace this version. */
function stored({ key, id }, clip) {
  const seen = versionOf(clip);
  keep(waiting.filter((w) => w.key !== key).map((w) => (w.id === id ? { ...w, seen } : w)));
  take(withWaiting(clip));
  if ([...state.clips.values()].filter(isJudged).length >= 20) readModels(); // with what was measured
}

const isSame = (by, body) => body && by && by.unsure === body.unsure && by.comment === body.comment.trim().split(/\s+/).join(" ")
  && JSON.stringify(by.label ?? by.values) === JSON.stringify(body.label ?? body.labels ?? body.values);

/** Show what the server has; the last refused change of the clip waits for the person. */
async function refuse({ id, body, ...change }, error) {
  if ((await get("health")).library !== library) return location.reload();
  const clip = await get(`clips/${id}`);
  // The answer to the first sending may have been lost.
  if (error.status === 412 && isSame(clip.correction, body)) return stored({ id, ...change }, clip);
  const last = waiting.findLast((w) => w.id === id);
  keep([...waiting.filter((w) => w.id !== id),
    ...(last.body ? [{ ...last, refused: error.message }] : [])]);
  take(withWaiting(clip));
  return say(`${titleOf(clip)}: not stored: ${error.message}`, true);
}

/** Tell what was refused, and let the person decide. */
function refusal(clip) {
  const mine = waiting.find((w) => w.id === clip.id && w.refused);
  if (!mine) return "";
  const { label, labels = [label], values, comment } = mine.body;
  const text = [...Object.entries(values ?? {}).flat(), ...labels, comment].filter(Boolean).join(" ");
  const decide = (change) => () => {
    keep(waiting.flatMap((w) => (w === mine ? change : [w])));
    take(withWaiting(clip));
    send();
  };
  return el("p", { className: "error" }, `Yours was not stored (${text}): ${mine.refused} `,
    el("button", { onclick: decide([{ ...mine, seen: clip.seen, refused: "" }]) }, "Store mine"),
    el("button", { onclick: decide([]) }, "Discard mine"));
}

/** Return the clip with the corrections that the server does not have yet. */
export function withWaiting(clip) {
  const [last, seen] = [waiting.findLast(({ id }) => id === clip.id), clip.seen ?? versionOf(clip)];
  if (!last || last.refused) return { ...clip, seen, refused: last?.refused };
  return { ...clip, seen, refused: "", correction: last.body && { ...last.body, waits: true } };
}

const isReady = (clip) => clip && (clip.state === "done" || isJudged(clip));
const valueOf = ({ correction, values }, name) => correction?.values?.[name] ?? values[name].value;

/** Return what holds for a clip now: label, labels or values, by a person or predicted. */
function answerOf(clip) {
  if (task() === "multilabel") return { labels: labelsOf(clip) };
  if (!rated()) return { label: labelsOf(clip)[0] };
  return { values: Object.fromEntries(barsOf(clip).map(({ name }) => [name, valueOf(clip, name)])) };
}

function change(clip, body) {
  const key = `${Date.now()}-${Math.random()}`;
  keep([...waiting.filter((w) => w.id !== clip.id || !w.refused), { key, id: clip.id, body, seen: clip.seen }]);
  if (body) take(withWaiting(clip));
  return send();
}

/** Store a change of the chosen clip; a comment on a clip that nobody judged has no label. */
function store(given, text, last = false) {
  const clip = current();
  const judges = isJudged(clip) || !("comment" in given || "unsure" in given);
  const body = { annotator: $("#annotator").value.trim(), comment: clip.correction?.comment ?? "",
    unsure: false, ...judges && answerOf(clip), ...given };
  done.push(clip.id);
  change(clip, body);
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
  if (!current()) return;
  const unsure = !current().correction?.unsure;
  store({ unsure }, unsure ? "unsure" : "sure");
}

export function undo() {
  const clip = state.clips.get(done.pop() ?? (current()?.correction && state.current));
  if (!clip) return say("Nothing to undo.");
  choose(clip.id);
  say(`${titleOf(clip)}: undone`);
  return change(clip, null);
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
  const [share, holds] = [clip.proba?.[name], labelsOf(clip).includes(name)];
  const kinds = [clip.set?.includes(name) && "in-set", holds && !isJudged(clip) && "predicted"];
  return el("button", { className: ["choice", ...kinds].filter(Boolean).join(" "),
    ariaPressed: String(holds && isJudged(clip)), onclick: () => correct(at) },
  el("kbd", {}, at < 9 ? at + 1 : "·"), el("span", {}, name),
  el("span", { className: "meter" }, el("i", { "width%": share ?? 0, color: colorOf(name) }),
    el("em", { className: "tick", hidden: true, "data-name": name })),
  el("span", { className: "soft" }, share === undefined ? "–" : percent(share)));
}

function factsText({ artist, map, doubt, set, correction: by }, place) {
  const did = isJudged({ correction: by }) ? "corrected" : "noted";
  return [artist, map && !rated() && place, doubt != null && `uncertainty ${percent(doubt)}`,
    set && `may be ${set.join(", ") || "none of them"}`,
    by && `${did} ${by.unsure ? "unsure, " : ""}by ${by.annotator || "unnamed"}`]
    .filter(Boolean).join(" · ");
}

function show() {
  const clip = current();
  if (!clip) return;
  const [focus, fields] = [document.activeElement, () => [...panel.querySelectorAll("button, input")]];
  const at = fields().indexOf(focus);
  fill($("#facts"), el("h2", {}, titleOf(clip)),
    el("p", { className: "soft" }, factsText(clip, placeText(clip))),
    state.isRelative && el("p", { className: "soft" }, moodText(clip)),
    clip.error && el("p", { className: "error" }, clip.error),
    refusal(clip), notesOf(clip).map((note) => el("p", { className: "note" }, note)),
    rated() && clip.values && plane(clip));
  const make = rated() ? clip.values && slider : choice;
  fill($("#choices"), make && outputs().map((name, i) => make(clip, name, i)));
  for (const name of ["unsure", "comment"]) $(`#${name}`).disabled = false;
  $("#confirm").disabled = !isReady(clip);
  $("#unsure").ariaPressed = String(Boolean(clip.correction?.unsure));
  if (focus.id !== "comment") $("#comment").value = clip.correction?.comment ?? "";
  if (at >= 0) fields()[at]?.focus();
}

on("current changed model compared", show);
setInterval(send, 3000);
addEventListener("storage", ({ key }) => { if (library && key === kept()) readKept(); });
$("#comment").maxLength = 10000;
for (const [name, work] of Object.entries({ confirm, unsure: markUnsure, undo })) {
  $(`#${name}`).addEventListener("click", work);
}
$("#comment").addEventListener("change", ({ target }) => store({
  comment: target.value, unsure: current().correction?.unsure ?? false }, "comment"));
