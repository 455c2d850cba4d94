"use strict";
// Lets the reader sort, filter and copy tables. Nothing here parses text as HTML.
const tables = (() => {
  const few = 6; // rows up to which a table needs no filter
  const many = 200; // rows above which only the first hundred are shown until the reader asks for more: page.css hides the others

  const textOf = (cell) => (cell.firstElementChild || cell).textContent.trim();

  const sort = (table, column) => {
    const head = table.tHead.rows[0].cells[column];
    const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    const isNumber = head.classList.contains("num");
    const value = (row) => {
      const cell = row.cells[column];
      if (!isNumber) return textOf(cell) || null;
      return cell.dataset.sort === undefined ? null : Number(cell.dataset.sort);
    };
    const order = (one, other) => {
      const [a, b] = [value(one), value(other)];
      if (a === null || b === null) return (a === null) - (b === null); // missing figures last, in both directions
      return direction * (isNumber ? a - b : a.localeCompare(b, "en", { numeric: true }));
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort(order));
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
  };

  // Show the rows that contain every word, and announce their number in `status`.
  const filter = (table, text, status) => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of table.tBodies[0].rows) {
      const all = words.length ? row.textContent.toLowerCase() : "";
      row.hidden = !words.every((word) => all.includes(word));
      count += !row.hidden;
    }
    status.textContent = words.length ? `${count} of ${table.tBodies[0].rows.length} rows` : "";
  };

  // Quote text that a spreadsheet would run as a formula, as report/csv_export.py.
  const csvField = (text) => {
    const safe = /^[=+\-@\t\r]/.test(text) && !Number.isFinite(Number(text)) ? "'" + text : text;
    return /[",\n\r]/.test(safe) ? '"' + safe.replaceAll('"', '""') + '"' : safe;
  };

  // The visible rows as CSV, with unrounded figures.
  const csv = (table) => {
    const heads = [...table.tHead.rows[0].cells].map((head) => csvField(head.textContent.trim()));
    const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) =>
      [...row.cells].map((cell) => csvField(cell.dataset.sort !== undefined ? cell.dataset.sort : textOf(cell))));
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

  // Turn the headings into buttons, and add a line of tools above the table.
  const enhance = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      let sorter = head.querySelector("button");
      if (!sorter) {
        sorter = panel.make("button", { type: "button" }, ...head.childNodes);
        head.append(sorter);
        head.setAttribute("aria-sort", "none");
      }
      sorter.addEventListener("click", () => sort(table, column));
    });
    const box = table.closest(".box");
    const name = box ? box.getAttribute("aria-label") : "table";
    const isMain = table.id === "cell-table";
    const tools = isMain ? document.querySelector("#cells .actions") : panel.make("p", { className: "actions small" });
    const status = isMain ? document.getElementById("csv-said") : panel.make("span", { role: "status" });
    const numRows = table.tBodies[0].rows.length;
    let showAll = null;
    if (numRows > many) {
      table.classList.add("shortened");
      showAll = button(`Show all ${numRows} rows`, () => {
        table.classList.remove("shortened");
        if (showAll) showAll.remove();
        showAll = null;
      });
      tools.append(showAll);
    }
    if (numRows > few) {
      const words = panel.make("input", { type: "search", placeholder: "rows with these words", autocomplete: "off" });
      words.setAttribute("aria-label", "Filter: " + name.replace(/, scrollable$/, ""));
      words.addEventListener("input", () => {
        if (showAll) showAll.click();
        filter(table, words.value, status);
      });
      tools.prepend(words);
    }
    if (isMain) return;
    tools.append(button("Copy as CSV", async () => { status.textContent = await copy(csv(table)) ? "Copied." : "The browser refused."; }), " ", status);
    box.before(tools);
  };

  return { enhance, copy, csv };
})();
