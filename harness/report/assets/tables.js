"use strict";
// Tables sort by their heads, filter by words and copy as CSV; nothing here reads a text as HTML.
const tables = (() => {
  const few = 6; // rows that need no filter

  const textOf = (square) => (square.firstElementChild || square).textContent.trim();

  const sort = (table, column) => {
    const head = table.tHead.rows[0].cells[column];
    const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    const isNumber = head.classList.contains("num");
    const value = (row) => {
      const square = row.cells[column];
      if (!isNumber) return textOf(square) || null;
      return square.dataset.sort === undefined ? null : Number(square.dataset.sort);
    };
    const order = (one, other) => {
      const [a, b] = [value(one), value(other)];
      if (a === null || b === null) return (a === null) - (b === null); // no figure: last, whichever way
      return way * (isNumber ? a - b : a.localeCompare(b, "en", { numeric: true }));
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort(order));
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", way === 1 ? "ascending" : "descending");
  };

  // Every word must stand somewhere in a row. The count is said where a screen reader hears it.
  const filter = (table, text, said) => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of table.tBodies[0].rows) {
      const all = words.length ? row.textContent.toLowerCase() : "";
      row.hidden = !words.every((word) => all.includes(word));
      count += !row.hidden;
    }
    said.textContent = words.length ? `${count} of ${table.tBodies[0].rows.length} rows` : "";
  };

  // A text that a spreadsheet would run as a formula is quoted, as report/tables.py does it.
  const csvField = (text) => {
    const safe = /^[=+\-@\t\r]/.test(text) && !Number.isFinite(Number(text)) ? "'" + text : text;
    return /[",\n\r]/.test(safe) ? '"' + safe.replaceAll('"', '""') + '"' : safe;
  };

  // What is on the screen: rows that the filter leaves, figures in full.
  const csv = (table) => {
    const heads = [...table.tHead.rows[0].cells].map((head) => csvField(head.textContent.trim()));
    const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) =>
      [...row.cells].map((square) => csvField(square.dataset.sort !== undefined ? square.dataset.sort : textOf(square))));
    return [heads, ...rows].map((row) => row.join(",") + "\n").join("");
  };

  const copyByHand = (text) => {
    const area = document.createElement("textarea");
    area.value = text;
    area.style.position = "fixed";
    area.style.opacity = "0";
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  };

  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return copyByHand(text);
    }
  };

  const button = (text, act) => panel.make("button", { type: "button", textContent: text, onclick: act });

  // Heads become buttons, and a line of tools stands before the table.
  const enhance = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      let inside = head.querySelector("button");
      if (!inside) {
        inside = panel.make("button", { type: "button" }, ...head.childNodes);
        head.append(inside);
        head.setAttribute("aria-sort", "none");
      }
      inside.addEventListener("click", () => sort(table, column));
    });
    const box = table.closest(".box");
    const name = box ? box.getAttribute("aria-label") || document.getElementById(box.getAttribute("aria-labelledby")).textContent : "table";
    const isMain = table.id === "cell-table";
    const tools = isMain ? document.querySelector("#cells .actions") : panel.make("p", { className: "actions small" });
    const said = isMain ? document.getElementById("csv-said") : panel.make("span", { role: "status" });
    if (table.tBodies[0].rows.length > few) {
      const words = panel.make("input", { type: "search", placeholder: "rows with these words", autocomplete: "off" });
      words.setAttribute("aria-label", "Filter: " + name.replace(/, scrollable$/, ""));
      words.addEventListener("input", () => filter(table, words.value, said));
      tools.prepend(words);
    }
    if (isMain) return;
    tools.append(button("Copy as CSV", async () => { said.textContent = await copy(csv(table)) ? "Copied." : "The browser refused."; }), " ", said);
    box.before(tools);
  };

  return { enhance, copy, csv };
})();
