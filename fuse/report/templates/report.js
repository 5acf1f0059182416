// Click a column's head to sort its table; the third click restores the page's order.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const original = Array.from(body.rows);
  const heads = Array.from(table.tHead.rows[table.tHead.rows.length - 1].cells);
  const value = (row, i) => row.cells[i].textContent.trim();
  heads.forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const numeric = head.classList.contains("n");
      const states = numeric ? ["descending", "ascending", ""] : ["ascending", "descending", ""];
      const next = states[(states.indexOf(head.getAttribute("aria-sort") || "") + 1) % 3];
      for (const other of heads) other.removeAttribute("aria-sort");
      const rows = original.slice();
      if (next) {
        head.setAttribute("aria-sort", next);
        const sign = next === "ascending" ? 1 : -1;
        rows.sort((a, b) => {
          const x = value(a, i), y = value(b, i);
          if (!numeric) return sign * x.localeCompare(y, undefined, { numeric: true });
          // Cells that are not numbers go last in both directions.
          const p = parseFloat(x.replaceAll(",", "")), q = parseFloat(y.replaceAll(",", ""));
          if (isNaN(p) || isNaN(q)) return isNaN(p) - isNaN(q);
          return sign * (p - q);
        });
      }
      body.append(...rows);
    });
  });
}

// Players are made when they are asked for, so that the page opens without reading any media.
function player(link, name) {
  const sound = /\.(mp3|wav|flac|ogg|oga|opus|m4a|aac|aiff?|wma)(#.*)?$/i.test(link);
  const media = document.createElement(sound ? "audio" : "video");
  Object.assign(media, { controls: true, preload: "none", src: link });
  media.setAttribute("aria-label", name);
  media.addEventListener("error", () => media.replaceWith("cannot be played here"));
  // One clip sounds at a time.
  media.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio, video")) if (other !== media) other.pause();
  });
  return media;
}

for (const link of document.querySelectorAll("#hard tbody a")) {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", className: "play", textContent: "Play" });
  button.setAttribute("aria-label", `Play ${link.textContent}`);
  button.addEventListener("click", () => {
    const media = player(link.getAttribute("href"), link.textContent);
    button.replaceWith(media);
    media.focus();
    media.play();
  });
  link.after(" ", button);
}

const chosen = document.getElementById("chosen");
if (chosen) {
  const cells = JSON.parse(document.getElementById("clips").textContent);
  const buttons = document.querySelectorAll("#cells button");
  for (const button of buttons) {
    button.addEventListener("click", () => {
      const open = button.getAttribute("aria-expanded") === "true";
      for (const other of buttons) other.setAttribute("aria-expanded", "false");
      chosen.replaceChildren();
      if (open) return;
      button.setAttribute("aria-expanded", "true");
      const place = button.closest("td");
      const { count, clips } = cells[place.parentNode.sectionRowIndex][place.cellIndex - 1];
      const title = document.createElement("h4");
      const first = clips.length < count ? ` (the surest ${clips.length})` : "";
      title.textContent = button.getAttribute("aria-label") + first;
      const list = document.createElement("ul");
      for (const [name, link] of clips) {
        const item = document.createElement("li");
        item.append(Object.assign(document.createElement("span"), { textContent: name }));
        if (link) item.append(player(link, name));
        list.append(item);
      }
      chosen.append(title, list);
    });
  }
}
