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
          const p = parseFloat(x), q = parseFloat(y);
          if (isNaN(p) || isNaN(q)) return isNaN(p) - isNaN(q);
          return sign * (p - q);
        });
      }
      body.append(...rows);
    });
  });
}
