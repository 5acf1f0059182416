// The clips, the model, and the order in which the list shows them.

import { call, get, pause } from "./api.js";
import { clock, number, percent } from "./dom.js";

export const changes = new EventTarget();
const tell = (name) => changes.dispatchEvent(new Event(name));
export const on = (names, work) => names.split(" ").forEach((n) => changes.addEventListener(n, work));

export const state = {
  clips: new Map(), // id → clip
  order: [], // ids in the list's order
  current: null, // id of the chosen clip
  folder: "", model: null, models: [], only: null, // {ids, text}: show these clips only
  compared: { clips: 0, fewest: 0, reason: "", map: {}, relative: {} }, // the folder's clips with each other
  isRelative: false, // show values relative to the folder
  filter: { text: "", moods: new Set(), doubt: 0, show: "" }, sort: "worth", reversed: false, };

export const current = () => state.clips.get(state.current);
export const task = () => state.model?.task;
export const rated = () => task() === "regression";
export const outputs = () => state.model?.outputs ?? [];
export const moodNames = () => state.model?.moods ?? outputs();
export const colorOf = (output) => state.model?.colors?.[output] ?? "#808894";
export const scaleOf = (output) => state.model?.scale?.[output] ?? [0, 1];
export const titleOf = (clip) => clip.title || clip.name || clip.path;
export const asksPerson = (clip) => (clip.cautions ?? []).includes("ask");
// A song has no pictures: that they are missing is no reason to doubt.
export const notesOf = (clip) => (clip.notes ?? []).filter((note) =>
  clip.kind !== "audio" || !note.startsWith("predicted only from sound ("));
const copies = new Map(); // content → paths of the files that have it
const orders = new Map(); // name of a sort → all clips in its order
let texts = new WeakMap(); // clip → text to search
export const copiesOf = (clip) => copies.get(clip.content) ?? [];
const LETTERS = { ł: "l", ø: "o", ß: "ss", æ: "ae", œ: "oe", đ: "d", ð: "d", þ: "th", ħ: "h", ŧ: "t",
  ı: "i", "’": "'" };
/** Return a text without case and accents: a person types "bjork" for "Björk". */
export const fold = (text) => text.normalize("NFKD").toLowerCase().replace(/[\u0300-\u036f]/g, "")
  .replace(/[łøßæœđðþħŧı’]/g, (letter) => LETTERS[letter]);
const array = (value) => (Array.isArray(value) ? value : value ? [value] : []);

/** Return the bars of a prediction, or of a window: name, share from 0 to 1, text. */
export function barsOf(record) {
  const { proba, values } = record;
  if (proba) return outputs().map((name) => ({ name, share: proba[name], text: percent(proba[name]) }));
  return outputs().filter((name) => values?.[name]).map((name) => {
    const [low, high] = scaleOf(name);
    const { value } = values[name];
    return { name, share: (value - low) / (high - low), text: number(value), ...values[name] };
  });
}

export const strongest = (record) => barsOf(record).sort((a, b) => b.share - a.share).slice(0, 3);

/** Return a clip's values relative to the folder, if they are shown. */
export const relativeOf = (clip) => state.isRelative && state.compared.relative[clip.id];

/** Return the bars to show: the strongest; relative to the folder, the ranks of two values. */
export function shownBars(clip) {
  const { quadrant, ...entries } = relativeOf(clip) || {};
  const axes = ["valence", "arousal", "energy"].filter((name) => entries[name]);
  const names = axes[1] ? axes : Object.keys(entries).sort((a, b) => entries[b].rank - entries[a].rank);
  const bars = names.slice(0, 2).map((name) => {
    const { rank, score, value } = entries[name];
    return { name, share: rank, text: `${rank.toFixed(2)} (${number(value)})`,
      title: `${name}: rank ${rank.toFixed(2)}, standard score ${score.toFixed(1)}, value ${number(value)}` };
  });
  return bars.length ? bars : strongest(clip);
}

/** Return true if a person gave the clip a label, and not only a comment. */
export const isJudged = ({ correction: by }) => (by?.labels ?? by?.label ?? by?.values) != null;

/** Return the labels that hold for a clip: those of a person, otherwise the predicted ones. */
export const labelsOf = ({ correction: by, label }) => array(by?.labels ?? by?.label ?? label);

/** Return the labels of a clip; of a rated clip the strongest rating that is no axis of the map. */
function moodsOf(clip) {
  if (!rated()) return labelsOf(clip);
  if (clip.quadrant) return isJudged(clip) ? [] : [clip.quadrant];
  const bars = barsOf(clip).filter((bar) => !state.model.axes.includes(bar.name));
  return bars.length ? [bars.reduce((a, b) => (b.share > a.share ? b : a)).name] : [];
}

export const moodOf = (clip) => moodsOf(clip)[0];

/** Return the clip's moods, or its state, in words. */
export function moodText(clip) {
  if (clip.error) return `failed: ${clip.error}`;
  if (clip.state === "missing") return "the file is gone";
  const { quadrant } = relativeOf(clip) || {};
  return [quadrant && `${quadrant} in this folder`, ...shownBars(clip).map((bar) => `${bar.name} ${bar.text}`)]
    .filter(Boolean).join(", ") || clip.state;
}

const SHOWN = {
  open: (c) => c.state === "done" && !isJudged(c),
  corrected: isJudged,
  unsure: (c) => c.correction?.unsure,
  ask: asksPerson, copies: (c) => copiesOf(c).length > 1,
  failed: (c) => c.state === "failed" || c.state === "missing", };

function isShown(clip) {
  const { text, moods, doubt, show } = state.filter;
  if (clip.state === "missing" && copies.has(clip.content)) return false; // the file was moved
  if (state.only && !state.only.ids.has(clip.id)) return false;
  if (moods.size && !moodsOf(clip).some((mood) => moods.has(mood))) return false;
  if ((doubt && !(clip.doubt >= doubt)) || (show && !SHOWN[show](clip))) return false;
  if (!text) return true;
  if (!texts.has(clip)) {
    texts.set(clip, fold([titleOf(clip), clip.artist, clip.path, ...moodsOf(clip)].join(" ")));
  }
  return text.split(/\s+/).every((word) => texts.get(clip).includes(word));
}

const SORTS = {
  // Clips that nobody corrected, by doubt; those that need a person come first.
  worth: (c) => (isJudged(c) ? 9 : c.state !== "done" ? 6 : 3 * !asksPerson(c)) - (c.doubt ?? 0),
  title: (c) => fold(titleOf(c)),
  artist: (c) => fold(`${c.artist ?? "\uffff"} ${titleOf(c)}`),
  mood: (c) => `${moodOf(c) ?? "\uffff"} ${(1 - (strongest(c)[0]?.share ?? 0)).toFixed(4)}`,
  doubt: (c) => -(c.doubt ?? -1),
  x: (c) => -(c.map?.[0] ?? -1),
  y: (c) => -(c.map?.[1] ?? -1),
  duration: (c) => c.duration ?? 1e9,
  rank: (c) => state.only?.ids.get(c.id) ?? 0,
  state: (c) => ["failed", "missing", "running", "waiting", "done"].indexOf(c.state),
};

const collator = new Intl.Collator("en", { numeric: true });

/** Return clips in the order of the list. */
function sorted(clips) {
  const compare = (a, b) => (typeof a === "string" ? collator.compare(a, b) : a - b);
  return clips.map((c) => [SORTS[state.sort](c), c]).sort(([a], [b]) => compare(a, b)).map(([, c]) => c);
}

/** Forget what follows from the clips, because some of them changed. */
function forget() {
  orders.clear();
  texts = new WeakMap();
  copies.clear();
  for (const { content, path, state: its } of state.clips.values()) {
    if (content && its !== "missing") copies.set(content, [...copies.get(content) ?? [], path]);
  }
}

/** Filter and sort the clips again; all of them are sorted once, as a person types on. */
export function arrange() {
  const all = [...state.clips.values()];
  let clips = (orders.get(state.sort) ?? all).filter(isShown);
  if (!orders.has(state.sort)) {
    const isWhole = clips.length > all.length / 4 && state.sort !== "rank";
    clips = sorted(isWhole ? all : clips);
    if (isWhole) {
      orders.set(state.sort, clips);
      clips = clips.filter(isShown);
    }
  }
  state.order = (state.reversed ? clips.reverse() : clips).map((clip) => clip.id);
  tell("order");
}

export function choose(id, play = false) {
  if (!state.clips.has(id)) return;
  state.current = id;
  tell("current");
  if (play) tell("play");
}

/** Return the id that lies `step` rows from the chosen clip. */
export function neighbour(step) {
  const at = state.order.indexOf(state.current);
  return state.order[at < 0 ? 0 : Math.max(0, Math.min(state.order.length - 1, at + step))];
}

/** Take a clip that the server, or the person, changed; the order stays. */
export function take(clip) {
  state.clips.set(clip.id, clip);
  forget();
  tell("clips");
  if (clip.id === state.current) tell("changed");
}

export async function readModels() {
  const { models } = await get("models");
  if (JSON.stringify(models) === JSON.stringify(state.models)) return;
  state.models = models;
  state.model = state.models.find((model) => model.current) ?? state.models[0];
  tell("model");
}

let isComparing = false;
let again = false; // clips changed since the last comparison
/** Read how the clips compare with each other. */
export async function compare() {
  again = true;
  if (isComparing) return;
  isComparing = true;
  while (again) {
    again = false;
    state.compared = await get("relative").catch(() => state.compared);
    tell("compared");
    await pause(1); // enough while many clips change
  }
  isComparing = false;
}

export function showRelative(isRelative) {
  state.isRelative = isRelative;
  tell("compared");
}

const FORGOTTEN = { state: "waiting", label: null, proba: null, values: null, set: null, map: null,
  doubt: null, quadrant: null };

export async function useModel(name) {
  await call("POST", "models/current", { name });
  // The former model's numbers must not stand under the new name until the new ones come.
  for (const clip of state.clips.values()) if (clip.state === "done") Object.assign(clip, FORGOTTEN);
  forget();
  Object.assign(state.compared, { reason: "", map: {}, relative: {} });
  await readModels();
}

const moved = (old, clip) => ["state", "doubt", "title", "model"].some((k) => old?.[k] !== clip[k]);

/** Follow the server's changes for ever; `keep` adds what the server does not know yet. */
export async function follow(keep) {
  for (let since = 0, wait = 0; ;) {
    try {
      const { revision, clips, model, total } = await get(`clips?since=${since}&wait=${wait}`);
      const isMoved = clips.some((clip) => moved(state.clips.get(clip.id), clip));
      for (const clip of clips) state.clips.set(clip.id, keep(clip));
      if (model !== state.model.name) await readModels(); // another page switched
      // Of a large folder the first clips are shown, then all.
      const isPart = since > 0 && clips.length >= 1000 && state.clips.size < total;
      [since, wait] = [revision, 20];
      if (isPart) continue;
      if (clips.length) forget();
      if (isMoved) [arrange(), compare()];
      else if (clips.length) tell("clips");
      if (clips.some((clip) => clip.id === state.current)) tell("changed");
      if (clips.length && state.clips.size >= total) await pause(0.25); // enough while many clips change
    } catch {
      [since, wait] = [0, 0]; // the next server may count anew: read everything
      await pause(1);
    }
  }
}

export const placeText = (clip) => (clip.map ?? []).map((x, i) =>
  `${state.model.axes[i]} ${x.toFixed(2)}`).join(", ");
/** Return a clip's path as seen from the opened folder. */
export const placeOfFile = ({ path }) => (path.startsWith(`${state.folder}/`)
  ? path.slice(state.folder.length + 1) : path);
export const durationText = (clip) => (clip.duration ? clock(clip.duration) : "–");
