"use strict";
// Sorts and filters the tables of classes. Without it the page shows the same content, in the file's order.

const text = (row, column) => row.cells[column].textContent.trim();

// a number, a text, or null where nothing is; of a bin its place among the bins, of which head is first
const value = (row, column, bins) => {
  const written = row.cells[column].dataset.v;
  if (written !== undefined) return written === "" ? null : Number(written);
  return bins ? bins.indexOf(row.dataset.bin) : text(row, column);
};

// what is not there stands last in both orders; equal rows keep their order
const compare = (a, b, sign) => {
  if (a === null || b === null) return (a === null) - (b === null);
  return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
};

for (const box of document.querySelectorAll(".classes")) {
  const heads = [...box.querySelectorAll("thead th")];
  const body = box.querySelector("tbody");
  const rows = [...body.rows];
  const controls = box.querySelector("form");
  const bins = [...controls.querySelectorAll("[name=bin]")].map((input) => input.value);
  const searched = rows.map((row) => [text(row, 0), row.querySelector("th").textContent.toLowerCase()]);

  const sort = (column) => {
    const sign = heads[column].getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((head) => head.setAttribute("aria-sort", "none"));
    heads[column].setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const keyed = rows.map((row) => [row, value(row, column, heads[column].textContent === "bin" ? bins : null)]);
    body.append(...keyed.sort((a, b) => compare(a[1], b[1], sign)).map(([row]) => row));
  };

  const filter = () => {
    const wanted = controls.elements.name.value.trim().toLowerCase();
    const off = new Set([...controls.querySelectorAll("[name=bin]:not(:checked)")].map((input) => input.value));
    let shown = 0;
    rows.forEach((row, i) => {
      const [id, name] = searched[i];
      row.hidden = off.has(row.dataset.bin) || !(name.includes(wanted) || id === wanted);
      shown += !row.hidden;
    });
    controls.querySelector("output").textContent = shown === rows.length ? `${shown} classes` : `${shown} of ${rows.length} classes`;
  };

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(column));
    head.append(button);
    head.setAttribute("aria-sort", "none");
  });
  controls.addEventListener("input", filter);
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.hidden = false;
}
