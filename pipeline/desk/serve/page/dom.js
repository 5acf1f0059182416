// Helpers that make elements and texts.

export const $ = (selector) => document.querySelector(selector);

/** Make an HTML element; "width%" and "left%" (0 to 1) and "color" set its style. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.endsWith("%")) node.style[name.slice(0, -1)] = `${100 * value}%`;
    else if (name === "color") node.style.setProperty("--color", value);
    else if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  return fill(node, ...children);
}

/** Replace the children of a node; null, false and empty texts are left out. */
export function fill(node, ...children) {
  node.replaceChildren(...children.flat().filter((child) => child || child === 0));
  return node;
}

/** Make an SVG element. */
export function svg(tag, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

export const percent = (share) => `${Math.round(100 * share)} %`;
export const number = (value) => value.toFixed(Math.abs(value) < 10 ? 2 : 0);
export const count = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

export function clock(seconds) {
  const [whole, two] = [Math.floor(seconds || 0), (n) => String(n).padStart(2, "0")];
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return `${hours ? `${hours}:${two(minutes)}` : minutes}:${two(whole % 60)}`;
}

let fading = 0;

/** Show a message in the status line, which screen readers read out. */
export function say(text, bad = false) {
  const line = $("#message");
  line.textContent = text;
  line.className = bad ? "shown bad" : "shown";
  clearTimeout(fading);
  fading = setTimeout(() => { line.className = ""; }, bad ? 15000 : 4000);
}
