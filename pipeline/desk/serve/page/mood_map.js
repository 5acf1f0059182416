// The mood map: a dot for each clip; a click plays, a rectangle selects.

import { showOnly } from "./clip_list.js";
import { $, count, say } from "./dom.js";
import { choose, colorOf, current, moodNames, moodOf, moodText, on, placeText, state, titleOf } from "./state.js";

const canvas = $("#dots");
const pen = canvas.getContext("2d");
const tip = $("#tip");
const MARGIN = 22;
let box = null; // the drawn rectangle in pixels: [x, y, x, y]
let cross = null; // place of the keyboard's cross-hair
let waiting = false;

const size = () => [canvas.clientWidth, canvas.clientHeight];
const ink = (name) => getComputedStyle(document.body).getPropertyValue(name);
const rankOf = (clip) => clip && state.compared.map[clip.id];
const dots = () => state.order.map((id) => state.clips.get(id)).filter(rankOf);
const pixel = ([x, y]) => [x, 1 - y].map((v, i) => MARGIN + v * (size()[i] - 2 * MARGIN));
const corners = () => [0, 1].map((i) => [box[i], box[i + 2]].sort((a, b) => a - b));
const isLarge = () => box && Math.abs(box[2] - box[0]) + Math.abs(box[3] - box[1]) > 12;

function drawAxes() {
  const [[left, bottom], [right, top]] = [pixel([0, 0]), pixel([1, 1])];
  pen.strokeStyle = ink("--line");
  pen.strokeRect(left, top, right - left, bottom - top);
  pen.strokeRect((left + right) / 2, top, 0, bottom - top);
  pen.strokeRect(left, (top + bottom) / 2, right - left, 0);
  pen.fillStyle = ink("--soft");
  pen.fillText(`${state.model.axes[0]} →`, left, bottom + 15);
  pen.fillText(`↑ ${state.model.axes[1]}`, left, top - 7);
}

/** Write each mood's name where its clips lie: colour must not be the only sign. */
function drawNames(groups) {
  const taken = [];
  Object.assign(pen, { font: "600 12px system-ui, sans-serif", textAlign: "center", lineWidth: 4,
    strokeStyle: ink("--panel"), fillStyle: ink("--ink") });
  for (const [name, points] of groups) {
    if (!points.length || !name) continue;
    const mean = (i) => points.reduce((sum, point) => sum + point[i], 0) / points.length;
    const [x, middle, half] = [mean(0), mean(1) + 4, pen.measureText(name).width / 2];
    const isFree = (y) => y > MARGIN && y < size()[1] - MARGIN
      && !taken.some(([a, b, c]) => Math.abs(a - x) < half + c + 3 && Math.abs(b - y) < 14);
    const y = [0, -14, 14, -28, 28].map((step) => middle + step).find(isFree);
    if (y === undefined) continue; // its colour and its button name it
    taken.push([x, y, half]);
    pen.strokeText(name, x, y);
    pen.fillText(name, x, y);
  }
}

function drawRing(place, radius) {
  Object.assign(pen, { strokeStyle: ink("--ink"), lineWidth: 2 });
  pen.beginPath();
  pen.arc(...place, radius, 0, 7);
  pen.stroke();
}

function draw() {
  waiting = false;
  if (!canvas.clientWidth || !state.model) return;
  [canvas.width, canvas.height] = size().map((pixels) => pixels * devicePixelRatio);
  pen.scale(devicePixelRatio, devicePixelRatio);
  pen.font = "12px system-ui, sans-serif";
  drawAxes();
  const clips = dots();
  const radius = clips.length > 2000 ? 2 : clips.length > 300 ? 3 : 5;
  const groups = new Map([undefined, ...moodNames()].map((name) => [name, []]));
  for (const clip of clips) groups.get(moodOf(clip))?.push(pixel(rankOf(clip)));
  pen.globalAlpha = clips.length > 2000 ? 0.55 : 0.85;
  for (const [name, points] of groups) {
    pen.fillStyle = name ? colorOf(name) : ink("--accent");
    pen.beginPath();
    for (const [x, y] of points) {
      pen.moveTo(x + radius, y);
      pen.arc(x, y, radius, 0, 7);
    }
    pen.fill();
  }
  pen.globalAlpha = 1;
  drawNames(groups);
  if (rankOf(current())) drawRing(pixel(rankOf(current())), radius + 4);
  if (cross && document.activeElement === canvas) drawRing(cross, 9);
  if (box) {
    pen.strokeStyle = ink("--accent");
    pen.strokeRect(box[0], box[1], box[2] - box[0], box[3] - box[1]);
  }
  canvas.ariaLabel = `Mood map of ${count(clips.length, "clip")}. Arrow keys move, Enter plays the `
    + "nearest clip, Shift with arrow keys draws a rectangle, Enter then selects its clips.";
}

function redraw() {
  if (!waiting) requestAnimationFrame(draw);
  waiting = true;
}

function nearest([x, y], most) {
  const far = (clip) => Math.hypot(...pixel(rankOf(clip)).map((v, i) => v - [x, y][i]));
  return dots().map((clip) => [far(clip), clip]).reduce((a, b) => (b[0] < a[0] ? b : a), [most])[1];
}

function select() {
  const [[left, right], [top, bottom]] = corners();
  const ids = dots().filter((clip) => {
    const [x, y] = pixel(rankOf(clip));
    return x >= left && x <= right && y >= top && y <= bottom;
  }).map((clip) => clip.id);
  box = null;
  if (!ids.length) return redraw();
  showOnly(ids, `${ids.length} from the map`);
  return say(`${count(ids.length, "clip")} from the map in the list: “Make playlist” saves them`);
}

const place = (event) => [event.offsetX, event.offsetY];
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  box = [...place(event), ...place(event)];
});
canvas.addEventListener("pointermove", (event) => {
  if (box && event.buttons) {
    box = [box[0], box[1], ...place(event)];
    return redraw();
  }
  const clip = nearest(place(event), 10);
  tip.hidden = !clip;
  tip.textContent = clip ? `${titleOf(clip)} – ${moodText(clip)}; ${placeText(clip)}` : "";
  tip.style.left = `${Math.max(0, Math.min(event.offsetX, canvas.clientWidth - 220))}px`;
  tip.style.top = `${event.offsetY + 16}px`;
  return null;
});
canvas.addEventListener("pointerup", (event) => {
  if (isLarge()) return select();
  box = null;
  return choose(nearest(place(event), 14)?.id, true);
});
canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
canvas.addEventListener("keydown", (event) => {
  const step = STEPS[event.key];
  cross ??= pixel(rankOf(current()) ?? [0.5, 0.5]);
  if (step) {
    const from = event.shiftKey ? box ?? cross : null;
    cross = cross.map((v, i) => Math.min(size()[i], Math.max(0, v + 12 * step[i])));
    box = from && [from[0], from[1], ...cross];
  } else if (event.key === "Enter" && isLarge()) select();
  else if (event.key === "Enter") choose(nearest(cross, 1e4)?.id, true);
  else return;
  event.preventDefault();
  event.stopPropagation();
  redraw();
});
for (const name of ["focus", "blur"]) canvas.addEventListener(name, redraw);
on("order clips compared current model", redraw);
new ResizeObserver(redraw).observe(canvas);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
