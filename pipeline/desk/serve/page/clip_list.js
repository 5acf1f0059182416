// The library: a list that makes only the rows in sight, so that 10,000 clips scroll smoothly.

import { $, count, el, fill, percent } from "./dom.js";
import { arrange, asksPerson, barsOf, choose, colorOf, copiesOf, durationText, fold, isJudged, labelsOf,
  moodNames, moodText, on, placeOfFile, placeText, rated, relativeOf, showRelative, shownBars, state, strongest,
  titleOf } from "./state.js";

const list = $("#list");
const rows = $("#rows");
const drawn = new Map(); // position in the list → element
let height = 52;

const meter = (bar) => el("span", { className: "mood", title: bar.title ?? bar.name },
  el("span", { className: "name" }, bar.name), el("span", { className: "soft" }, bar.text),
  el("span", { className: "meter" }, el("i", { "width%": bar.share, color: colorOf(bar.name) })));

function setText(clip) {
  const { quadrant } = relativeOf(clip) || {};
  if (quadrant) return `${quadrant} in this folder${rated() ? "" : `, by itself ${strongest(clip)[0].name}`}`;
  const wide = barsOf(clip).find((bar) => bar.high !== undefined);
  if (wide) return `${wide.name} may be ${wide.low.toFixed(1)} to ${wide.high.toFixed(1)}`;
  return clip.set ? `may be ${clip.set.join(", ") || "none of them"}` : "";
}

function markText(clip) {
  const by = clip.correction;
  if (clip.refused) return "not stored";
  if (!by) return asksPerson(clip) ? "ask a person" : "";
  if (!isJudged(clip)) return by.unsure ? "unsure" : "comment";
  return `${by.waits ? "…" : by.unsure ? "unsure:" : "✓"} ${labelsOf(clip).join(", ") || "rated"}`;
}

function makeRow(clip, at) {
  const [title, mark, bars, paths] = [titleOf(clip), markText(clip), shownBars(clip), copiesOf(clip)];
  const copies = paths.length > 1 && `${paths.length} copies`;
  const row = el("div", { role: "option", id: `clip-${clip.id}`, className: `clip ${clip.state}`,
    "aria-posinset": at + 1, "aria-setsize": state.order.length,
    "aria-selected": clip.id === state.current,
    "aria-label": [title, clip.artist, copies, moodText(clip), placeText(clip), mark, durationText(clip)]
      .filter(Boolean).join(", ") },
  el("span", { className: "kind", title: `play ${title}` }, clip.kind === "video" ? "▶" : "♪"),
  el("span", { className: "two", title: `${title}\n${clip.path}` }, el("b", {}, title),
    el("span", { className: "soft" }, copies && el("em", { className: "badge", title: paths.join("\n") },
      copies), clip.artist ?? placeOfFile(clip))),
  el("span", { className: "moods" }, bars.length ? bars.map(meter) : moodText(clip)),
  el("span", { className: "two mark" },
    el("span", { className: clip.correction && !clip.refused ? "good" : "ask" }, mark),
    el("span", { className: "soft set" }, setText(clip))),
  el("span", { className: "soft place" }, clip.map?.map((x) => x.toFixed(2)).join(" · ")),
  el("span", { className: "soft doubt" }, clip.doubt == null ? "" : percent(clip.doubt)),
  el("span", { className: "soft duration" }, durationText(clip)));
  row.style.transform = `translateY(${at * height}px)`;
  row.dataset.id = clip.id;
  return row;
}

/** Draw the rows in sight; `fresh` replaces those that changed. A click on a replaced row is lost. */
function draw(fresh) {
  const first = Math.max(0, Math.floor(list.scrollTop / height) - 6);
  const last = Math.min(state.order.length, first + Math.ceil(list.clientHeight / height) + 12);
  for (const [at, row] of drawn) {
    if (at >= first && at < last) continue;
    row.remove();
    drawn.delete(at);
  }
  for (let at = first; at < last; at++) {
    const old = drawn.get(at);
    if (old && !fresh) continue;
    const row = makeRow(state.clips.get(state.order[at]), at);
    if (old?.isEqualNode(row)) continue;
    drawn.set(at, row);
    if (old) old.replaceWith(row);
    else rows.append(row);
  }
  const there = document.getElementById(`clip-${state.current}`);
  list.setAttribute("aria-activedescendant", there?.id ?? "");
}

function refresh() {
  height = matchMedia("(max-width: 760px)").matches ? 84 : 52;
  rows.style.height = `${state.order.length * height}px`;
  draw(true);
  const clips = [...state.clips.values()];
  const waiting = clips.filter((clip) => /waiting|running/.test(clip.state)).length;
  const corrected = clips.filter(isJudged).length;
  fill($("#count"), `${state.order.length.toLocaleString("en")} of ${count(clips.length, "clip")}`,
    corrected > 0 && ` · ${corrected} corrected`, waiting > 0 && ` · ${waiting} waiting`, " ",
    state.only && el("button", { className: "chip", onclick: () => showOnly(),
      ariaLabel: `Stop showing only ${state.only.text}` }, `${state.only.text} ✕`));
  $("#empty").hidden = state.order.length > 0;
  $("#empty").textContent = clips.length ? "No clip matches: clear the search or the filters."
    : "No clips yet: drop files or a folder here, or use “Add clips”.";
}

/** Show these clips only, in their order if they are ranked; without ids all. */
export function showOnly(ids, text, isRanked = false) {
  state.only = ids ? { ids: new Map(ids.map((id, rank) => [id, rank])), text } : null;
  if (isRanked || state.sort === "rank") $("#sort").value = state.sort = isRanked ? "rank" : "worth";
  arrange();
  list.scrollTop = 0;
}

function reveal() {
  const top = state.order.indexOf(state.current) * height;
  const over = top + height - list.clientHeight;
  if (top >= 0) list.scrollTop = Math.min(top, Math.max(list.scrollTop, over));
}

function drawModel() {
  const axes = state.model.axes;
  ["x", "y"].forEach((name, i) => { $(`#sort option[value=${name}]`).textContent = axes[i]; });
  const place = axes[0].startsWith("component") ? "map" : axes.join(" · ");
  $("#columns").replaceChildren(el("span"), ...[["title", "title"], [rated() ? "ratings" : "moods", "mood"],
    ["correction", "worth"], [place, "x"], ["uncertainty", "doubt"], ["length", "duration"]]
    .map(([name, sort]) => el("button", { title: `Sort by ${name}`, onclick: () => sortBy(sort) }, name)));
  const { moods } = state.filter;
  moods.clear();
  $("#moods").replaceChildren(...moodNames().map((name) => el("button", { className: "chip",
    ariaPressed: "false", color: colorOf(name), onclick: ({ currentTarget: chip }) => {
      if (!moods.delete(name)) moods.add(name);
      chip.ariaPressed = String(moods.has(name));
      arrange();
    } }, el("i"), name)));
  arrange();
}

for (const kind of ["click", "dblclick"]) {
  list.addEventListener(kind, ({ target }) => {
    const id = target.closest(".clip")?.dataset.id;
    choose(id, kind === "dblclick" || target.className === "kind");
  });
}
list.addEventListener("scroll", () => requestAnimationFrame(() => draw(false)), { passive: true });
new ResizeObserver(refresh).observe(list);
on("order clips compared", refresh);
on("compared", () => {
  const { clips, fewest, reason } = state.compared;
  $("#relative").disabled = clips < fewest;
  $("#relative-field").title = clips < fewest ? `From ${fewest} predicted clips on`
    : "Show ranks among the clips of this folder, with the values beside them";
  $("#offer").hidden = !reason || state.isRelative;
  $("#offer").textContent = `${reason}: switch on “Relative to this folder” to compare the clips with each other`;
});
$("#relative").addEventListener("input", ({ target }) => showRelative(target.checked));
on("model", drawModel);
on("current", () => {
  reveal();
  draw(false);
  for (const row of drawn.values()) row.ariaSelected = String(row.dataset.id === state.current);
});

/** Sort by this; if it is so already, in the other direction. */
function sortBy(name) {
  if (state.sort === name) return void $("#reverse").click();
  $("#sort").value = name;
  $("#sort").dispatchEvent(new Event("input"));
}

const settings = {
  sort: (value) => { state.sort = value; },
  show: (value) => { state.filter.show = value; },
  search: (value) => {
    state.filter.text = fold(value).trim();
    // Who looks for a song knows its title, not its uncertainty.
    if (state.filter.text && state.sort === "worth") $("#sort").value = state.sort = "title";
  },
  doubt: (value) => {
    state.filter.doubt = value / 100;
    $("#doubt-value").textContent = percent(value / 100);
  }, };
for (const [name, set] of Object.entries(settings)) {
  $(`#${name}`).addEventListener("input", ({ target }) => {
    set(target.value);
    arrange();
    list.scrollTop = 0;
  });
}
$("#more").addEventListener("click", ({ currentTarget: button }) => {
  button.ariaExpanded = String(document.body.classList.toggle("filtering"));
});
$("#reverse").addEventListener("click", ({ currentTarget: button }) => {
  state.reversed = !state.reversed;
  button.ariaPressed = String(state.reversed);
  arrange();
});
