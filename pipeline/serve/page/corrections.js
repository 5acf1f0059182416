// Corrections of the chosen clip. Each is kept in this browser until the server has stored it.

import { call, connection, pause } from "./api.js";
import { $, el, number, percent, say } from "./dom.js";
import { barsOf, choose, colorOf, current, labelsOf, neighbour, on, outputs, placeText, rated, scaleOf,
  state, take, task, titleOf } from "./state.js";

const KEPT = "mvemo.corrections";
const done = []; // ids in the order of their corrections, for undo
let waiting = JSON.parse(localStorage.getItem(KEPT) ?? "[]"); // {id, body}; body null undoes
let sending = false;

const annotator = $("#annotator");
annotator.value = localStorage.getItem("mvemo.annotator") ?? "";
annotator.addEventListener("input", () => {
  localStorage.setItem("mvemo.annotator", annotator.value);
});

function keepWaiting(change) {
  waiting = change;
  localStorage.setItem(KEPT, JSON.stringify(waiting));
}

/** Send the corrections that wait, in order; those that the server cannot take now stay. */
export async function send() {
  if (sending) return;
  sending = true;
  while (waiting.length) {
    const { id, body } = waiting[0];
    try {
      const found = await call(body ? "PUT" : "DELETE", `corrections/${id}`, body ?? undefined);
      keepWaiting(waiting.slice(1));
      if (!waiting.some((w) => w.id === id)) take(found);
    } catch (error) {
      if (error.status === 429 || error.status === 503) await pause(error.wait);
      else if (error.status >= 400 && error.status !== 401 && error.status < 500) {
        keepWaiting(waiting.slice(1));
        say(`${id}: the correction was refused: ${error.message}`, true);
      } else break; // sent again when the server is back
    }
  }
  sending = false;
}

/** Return the clip with corrections that the server does not have yet. */
export function withWaiting(clip) {
  const last = waiting.findLast((w) => w.id === clip.id);
  return last ? { ...clip, correction: last.body } : clip;
}

function store(clip, change) {
  const before = clip.correction ?? {};
  const body = { annotator: annotator.value.trim(), comment: before.comment ?? "",
    unsure: false, ...predicted(clip, before), ...change };
  done.push(clip.id);
  keepWaiting([...waiting, { id: clip.id, body }]);
  take({ ...clip, correction: body });
  send();
}

/** Return label, labels or values of a clip: those of the person, otherwise the predicted. */
function predicted(clip, before) {
  if (rated()) {
    const values = Object.fromEntries(barsOf(clip).map((bar) => [bar.name,
      clip.values[bar.name].value]));
    return { values: { ...values, ...before.values } };
  }
  return task() === "multilabel" ? { labels: labelsOf(clip) } : { label: labelsOf(clip)[0] };
}

const advance = () => $("#advance").checked && choose(neighbour(1), !$("#media").paused);
const ready = (clip) => clip && (clip.state === "done" || clip.correction);

/** Correct the chosen clip to the output with this number: a class, or a tag to switch. */
export function correct(at) {
  const [clip, name] = [current(), outputs()[at]];
  if (!clip || !name) return;
  if (rated()) {
    $("#clip").querySelectorAll("input[type=range]")[at]?.focus();
  } else if (task() === "multilabel") {
    const labels = labelsOf(clip);
    store(clip, { labels: labels.includes(name) ? labels.filter((l) => l !== name)
      : outputs().filter((l) => l === name || labels.includes(l)) });
    say(`${titleOf(clip)}: ${labelsOf(current()).join(", ") || "no tag"}`);
  } else {
    store(clip, { label: name });
    say(`${titleOf(clip)}: ${name}`);
    advance();
  }
}

export function confirm() {
  const clip = current();
  if (!ready(clip)) return;
  store(clip, {});
  say(`${titleOf(clip)}: right as it is`);
  advance();
}

export function markUnsure() {
  const clip = current();
  if (!ready(clip)) return;
  store(clip, { unsure: !clip.correction?.unsure });
  say(`${titleOf(clip)}: ${current().correction.unsure ? "unsure" : "sure"}`);
}

export function undo() {
  const clip = state.clips.get(done.pop() ?? (current()?.correction ? state.current : null));
  if (!clip) return say("Nothing to undo.");
  choose(clip.id);
  keepWaiting([...waiting, { id: clip.id, body: null }]);
  say(`${titleOf(clip)}: undone`);
  return send();
}

function rate(clip, values) {
  store(clip, { values: { ...predicted(clip, clip.correction ?? {}).values, ...values } });
  say(Object.entries(values).map(([name, value]) => `${name} ${number(value)}`).join(", "));
}

/** Make a plane in which a click rates both axes of the model. */
function plane(clip) {
  const axes = state.model.axes;
  if (!axes.every((axis) => outputs().includes(axis))) return null;
  const value = (axis) => clip.correction?.values?.[axis] ?? clip.values?.[axis]?.value;
  const share = (axis) => (value(axis) - scaleOf(axis)[0]) / (scaleOf(axis)[1] - scaleOf(axis)[0]);
  const dot = el("i", { "left%": share(axes[0]) });
  dot.style.bottom = `${100 * share(axes[1])}%`;
  return el("div", { id: "rating-plane", title: "Click to rate", onclick: (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const shares = [(event.clientX - box.left) / box.width, (box.bottom - event.clientY) / box.height];
    rate(clip, Object.fromEntries(axes.map((axis, i) => {
      const [low, high] = scaleOf(axis);
      return [axis, Number((low + shares[i] * (high - low)).toFixed(3))];
    })));
  } }, dot, el("span", {}, `${axes[1]} ↑`), el("span", {}, `${axes[0]} →`));
}

function slider(clip, bar, at) {
  const [low, high] = scaleOf(bar.name);
  const value = clip.correction?.values?.[bar.name] ?? clip.values[bar.name].value;
  return el("label", { className: "rating", color: colorOf(bar.name) },
    el("kbd", {}, String(at + 1)), el("span", { className: "name" }, bar.name),
    el("input", { type: "range", min: low, max: high, step: (high - low) / 100, value,
      onchange: (event) => rate(current(), { [bar.name]: Number(event.target.value) }) }),
    el("span", { className: "value" }, number(value)));
}

function choice(clip, bar, at) {
  const chosen = labelsOf(clip).includes(bar.name);
  const set = clip.set?.includes(bar.name);
  return el("button", { className: `choice ${set ? "in-set" : ""}`, ariaPressed: String(chosen),
    color: colorOf(bar.name), onclick: () => correct(at),
    title: set ? "in the prediction set" : "" },
  el("kbd", {}, at < 9 ? String(at + 1) : "·"), el("span", { className: "name" }, bar.name),
  el("span", { className: "meter" }, el("i", { "width%": bar.share }),
    el("em", { className: "tick", hidden: true, "data-name": bar.name })),
  el("span", { className: "value" }, bar.text));
}

function facts(clip) {
  const sure = clip.correction;
  const person = sure && `${sure.unsure ? "unsure, " : ""}by ${sure.annotator || "unnamed"}`;
  return el("p", { className: "soft facts" }, [clip.artist, placeText(clip),
    clip.doubt == null ? null : `doubt ${percent(clip.doubt)}`,
    clip.set ? `set: ${clip.set.join(", ") || "none"}` : null,
    sure ? `corrected ${person}` : null].filter(Boolean).join(" · "));
}

function show() {
  const clip = current();
  const panel = $("#clip");
  if (!clip) {
    panel.replaceChildren(el("p", { className: "hint" },
      "Choose a clip to see its moods, listen, and correct it."));
    return;
  }
  const bars = barsOf(clip).length ? barsOf(clip)
    : outputs().map((name) => ({ name, share: 0, text: "–" }));
  const focus = document.activeElement;
  const typed = focus.id === "comment" ? focus.value : null;
  const at = panel.contains(focus) ? [...panel.querySelectorAll("button, input")].indexOf(focus) : -1;
  panel.replaceChildren(el("h2", {}, titleOf(clip)), facts(clip),
    clip.error ? el("p", { className: "error" }, clip.error) : "",
    ...(clip.notes ?? []).map((note) => el("p", { className: "note" }, note)),
    rated() && clip.values ? plane(clip) : "",
    el("div", { className: "choices", role: "group", ariaLabel: "Correct" },
      bars.map((bar, i) => (rated() ? clip.values && slider(clip, bar, i) : choice(clip, bar, i)))),
    el("div", { className: "row" },
      el("button", { onclick: confirm, disabled: !ready(clip) }, "Right as it is"),
      el("button", { onclick: markUnsure, disabled: !ready(clip),
        ariaPressed: String(Boolean(clip.correction?.unsure)) }, "Unsure"),
      el("button", { onclick: undo }, "Undo"),
      el("label", { className: "field" }, el("input", { type: "checkbox", id: "advance",
        checked: localStorage.getItem("mvemo.advance") !== "no",
        onchange: (e) => localStorage.setItem("mvemo.advance", e.target.checked ? "yes" : "no") }),
      "then next clip")),
    el("label", { className: "field wide" }, "Comment", el("input", { id: "comment",
      value: clip.correction?.comment ?? "", disabled: !ready(clip),
      onchange: (event) => { store(clip, { comment: event.target.value }); say("Comment kept."); } })));
  if (at >= 0) panel.querySelectorAll("button, input")[at]?.focus();
  if (typed !== null) $("#comment").value = typed;
}

on("current changed model", show);
connection.addEventListener("back", send);
setInterval(() => { if (waiting.length) send(); }, 3000);
show();
