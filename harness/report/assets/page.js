"use strict";
// Keeps the page in step with its state, which the address holds. Nothing here parses text as HTML.
(() => {
  const is = (value) => value !== null && value !== undefined;
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const find = (id) => document.getElementById(id);
  const root = document.documentElement;
  const facts = recompute.unpack(read("facts"));
  const own = address.own(facts);
  const originalFormat = decision.moneyFormat(own.values); // in which Python wrote amounts
  const original = recompute.derive(facts, own);
  const charts = read("figures").filter((item) => find(item.key)).map((item) => ({ ...item, title: find(item.key).previousElementSibling.textContent }));
  let state = own;
  let context = { facts, original, derived: original, originalFormat, moneyFormat: originalFormat, values: own.values };
  let chosen = ranking.choose(facts, original, own);
  let version = 0; // of the context, from which charts are computed

  const isOwn = () => address.changes(facts, state).length === 0;

  document.querySelectorAll("table.cells, table.figures, table.plain").forEach((table) => { if (!table.closest(".alternatives")) tables.enhance(table); });

  const textBox = (head) => ({ box: head.querySelector("button") || head, text: head.textContent });
  const heads = [...document.querySelectorAll("thead th, [data-recode]")].filter((head) => new RegExp(`\\b${originalFormat.code}\\b`).test(head.textContent)).map(textBox);

  // Headings of text that Python wrote, marked as outdated once an assumption has changed.
  const outdated = [...document.querySelectorAll("th")].filter((head) => head.textContent === "what is in it").map(textBox);

  const fillTiles = () => {
    const box = find("tiles");
    if (!box || chosen.pick === null) return;
    const tiles = decision.tiles(facts, context.derived, chosen, state);
    [...box.children].forEach((tile, index) => { tile.hidden = index >= tiles.length; });
    tiles.forEach((tile, index) => {
      const [label, content] = box.children[index].children;
      const [figure, mark, note] = content.children;
      label.textContent = tile.label;
      figure.textContent = tile.value;
      mark.textContent = tile.basis ? tile.basis + " price" : "";
      mark.className = tile.basis ? "basis basis-" + tile.basis : "";
      mark.hidden = !tile.basis;
      note.textContent = tile.note;
    });
  };

  const isAsWritten = () => isOwn() && !is(state.accuracy) && !is(state.machine);
  const fillAnswer = () => {
    const box = find("decision");
    if (!box) return;
    const [lead, ...more] = isAsWritten() && facts.answer.length ? facts.answer : decision.sentences(facts, context.derived, chosen, state);
    box.querySelector(".say").textContent = lead;
    box.querySelector(".more").replaceChildren(...more.map((text) => panel.make("li", { textContent: text, className: /^(Next|Then): /.test(text) ? "next" : "" })));
    const handOver = box.querySelector(".hand-over");
    handOver.hidden = chosen.pick === null || !chosen.reached;
    if (!handOver.hidden) {
      const cell = facts.cells[chosen.pick];
      handOver.querySelector("code").textContent = cell.name;
      handOver.querySelector("span").textContent = cell.words;
    }
    box.classList.toggle("for-decide", isAsWritten());
    find("tiles").hidden = handOver.hidden;
  };

  const fillValue = () => {
    const box = find("value");
    const card = decision.valueCard(facts, context.derived, chosen, state);
    box.hidden = card === null;
    if (card === null) return;
    const entries = card.fields.map(({ title, value, whose }) => panel.make("li", { textContent: `${title}: ${value} (${whose})` }));
    box.replaceChildren(panel.make("p", { className: "second", textContent: card.text }), panel.make("ul", { className: "aside values" }, ...entries));
  };

  const rowsAsWritten = [...document.querySelectorAll("#cell-table tbody tr[data-cell]")];
  const fillPicked = () => {
    const isPicked = (row) => chosen.reached && Number(row.dataset.cell) === chosen.pick;
    const changed = rowsAsWritten.filter((row) => row.classList.contains("picked") !== isPicked(row));
    for (const row of changed.filter((each) => !isPicked(each))) {
      row.classList.remove("picked");
      row.querySelector(".chosen").remove();
      row.parentNode.insertBefore(row, rowsAsWritten[rowsAsWritten.indexOf(row) + 1] || null);
    }
    for (const row of changed.filter(isPicked)) {
      row.classList.add("picked");
      row.cells[0].append(panel.make("span", { className: "chosen", textContent: "chosen above" }));
      row.parentNode.prepend(row);
    }
  };

  // A list of the changed assumptions, and a mark on each text that doesn't follow them.
  const marks = [...document.querySelectorAll("[data-written], [data-chosen]")].map((box) => {
    const mark = panel.make("span", { className: "written", hidden: true, textContent: "As the report was written: " });
    box.prepend(mark);
    return { mark, isCurrent: box.hasAttribute("data-chosen") ? isAsWritten : isOwn };
  });
  const fillChanges = () => {
    const names = new Set(address.changes(facts, state));
    const changes = facts.machines.filter((machine) => names.has("price." + machine.id)).map((machine) => {
      const choice = machine.choices[state.choices[facts.machines.indexOf(machine)]];
      return `${machine.label} as ${choice.instance || "given"}`;
    });
    facts.machines.forEach((machine, index) => {
      if (names.has("hourly." + machine.id)) changes.push(`${machine.label}: ${context.moneyFormat.perHour(state.hourly[index])} an hour`);
    });
    for (const input of facts.inputs) if (names.has(input.name)) changes.push(`${input.title}: ${panel.shown(input, state.values[input.name])}`);
    const box = find("changes");
    box.hidden = !changes.length;
    box.querySelector("span").textContent = changes.length ? `Changed from the report as it was written: ${changes.join("; ")}.` : "";
    for (const { mark, isCurrent } of marks) mark.hidden = isCurrent();
    for (const head of outdated) head.box.textContent = head.text + (isOwn() ? "" : ", as the report was written");
    for (const place of document.querySelectorAll("[data-machine]")) {
      const price = context.derived.prices[Number(place.dataset.machine)];
      place.hidden = isOwn();
      place.textContent = "Now: " + (price.missing || `${context.moneyFormat.perHour(price.usd_per_hour)} an hour, ${price.instance || "as given"}, ${panel.words[price.plan]}`);
    }
  };

  const compute = (item) => {
    if (item.version === version) return item.computed;
    item.version = version;
    const asWritten = { data: item.figure.data, layout: item.figure.layout, title: item.title };
    const isCost = item.key === "chart-cost";
    const isUnchanged = isOwn() && (!isCost || (state.view === "engineer" && !is(state.accuracy) && !is(state.machine)));
    item.computed = isUnchanged ? asWritten : isCost ? scatter.chart(item, context, chosen, state) || asWritten : redraw.chart(item, context);
    return item.computed;
  };
  let isUnpacked = false; // whether there is Plotly
  const draw = (item) => {
    const box = find(item.key);
    if (!isUnpacked || drawing.isHidden(box)) return null;
    const chart = compute(item);
    item.drawn = version;
    const drawn = drawing.draw(box, chart, item.figure.layout.height);
    if (chart.title && chart.title !== box.previousElementSibling.textContent) box.previousElementSibling.textContent = chart.title;
    if (chart.label) box.setAttribute("aria-label", chart.label);
    return drawn;
  };
  const drawAll = () => Promise.all(charts.map(draw)).then(() => { root.dataset.drawn = root.dataset.print ? "print" : innerWidth; });
  const dependsOnState = (item) => item.key === "chart-cost" || item.figure.layout.meta;
  let frame = 0;
  const drawLater = () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => charts.filter((item) => !is(item.drawn) || (item.drawn !== version && dependsOnState(item))).forEach(draw));
  };

  // The engineer's view has its sections unfolded and the chart of costs below the table of cells.
  const arrange = (view) => {
    root.dataset.view = view;
    for (const fold of document.querySelectorAll("[data-opens]")) fold.open = view === "engineer";
    find(view === "engineer" ? "cells" : "answer").after(find("cost"));
  };
  const unfold = (place) => {
    for (let fold = place.closest("details") || place.querySelector("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  };

  let controls = null;
  const apply = (next, isFirst = false) => {
    const before = state;
    state = next;
    const isValid = !address.clashes(state.values).length;
    if (isValid) {
      version += 1;
      const derived = recompute.derive(facts, state);
      context = { facts, original, derived, originalFormat, moneyFormat: decision.moneyFormat(state.values), values: state.values };
      chosen = ranking.choose(facts, derived, state);
      if (isFirst || before.view !== state.view) arrange(state.view);
      for (const button of document.querySelectorAll("#views button")) button.setAttribute("aria-pressed", String(button.dataset.to === state.view));
      if (!isFirst || !isOwn()) tableCells.fill(context);
      for (const head of heads) {
        const text = context.moneyFormat.recode(head.text, originalFormat.code);
        if (head.box.textContent !== text) head.box.textContent = text;
      }
      fillTiles();
      fillAnswer();
      fillValue();
      fillPicked();
      fillChanges();
      if (!isFirst) remember();
      drawLater();
    }
    if (controls) controls.show(state);
    if (before.view !== state.view && !isFirst) scrollTo(0, 0);
  };
  const set = (changed) => apply({ ...state, ...changed });

  const remember = () => {
    const fragment = address.format(facts, state);
    if (fragment === location.hash) return;
    try {
      history.replaceState(null, "", fragment || location.pathname + location.search);
    } catch {
      location.hash = fragment; // browsers that forbid replaceState in local files
    }
  };
  const recall = (isFirst) => {
    const fragment = location.hash.slice(1);
    const place = fragment && !fragment.includes("=") ? find(fragment) : null;
    const [next, ignored] = place ? [{ ...own, view: "engineer" }, []] : address.parse(facts, fragment);
    apply(next, isFirst);
    find("ignored").textContent = ignored.length ? `Not understood in the address, and left out: ${ignored.join(", ")}.` : "";
    if (place) {
      unfold(place);
      place.scrollIntoView();
    }
  };

  // Follow links within the page without changing the address, which holds the state.
  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest('a[href^="#"]');
    const place = link && find(link.getAttribute("href").slice(1));
    if (!place) return;
    event.preventDefault();
    unfold(place);
    place.setAttribute("tabindex", "-1");
    place.focus({ preventScroll: true });
    place.scrollIntoView();
  });

  const csvStatus = find("csv-said");
  if (csvStatus) {
    const text = read("csv");
    const caveat = () => isOwn() ? "" : " Its figures are the report's as it was written.";
    find("copy-csv").addEventListener("click", async () => {
      csvStatus.textContent = await tables.copy(text) ? "Copied." + caveat() : "The browser refused; use the download.";
    });
    find("download-csv").addEventListener("click", () => {
      const link = panel.make("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: "cells.csv" });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      csvStatus.textContent = "Saved." + caveat();
    });
  }

  const group = find("map-group");
  if (group) {
    group.addEventListener("change", () => {
      for (const maps of document.querySelectorAll(".map-group")) maps.hidden = maps.dataset.group !== group.value;
      drawLater();
    });
  }

  document.addEventListener("toggle", () => { // it does not bubble
    if (version > 1 || !isOwn()) tableCells.fill(context);
    drawLater();
  }, true);
  const wide = matchMedia("(min-width: 75rem)");
  const foldContents = () => { find("contents").open = wide.matches; };
  wide.addEventListener("change", foldContents);
  foldContents();

  find("views").hidden = false;
  for (const button of document.querySelectorAll("#views button")) button.addEventListener("click", () => set({ view: button.dataset.to }));
  if (find("controls")) {
    controls = panel.build(find("controls"), find("assumptions").querySelector(".groups"), facts, own, facts.cells[chosen.pick].machine, () => state, set);
    find("reset").addEventListener("click", () => {
      apply({ ...own, view: state.view });
      find("needed").focus();
    });
  }
  recall(true);
  addEventListener("hashchange", () => recall(false));

  const begin = async () => {
    if (charts.length) {
      await drawing.unpack();
      isUnpacked = true;
      await drawAll();
    }
    root.dataset.ready = "yes";
  };
  begin();
  if (charts.length) {
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
    addEventListener("beforeprint", () => { root.dataset.print = "yes"; drawAll(); });
    addEventListener("afterprint", () => { delete root.dataset.print; drawAll(); });
    let width = innerWidth;
    let timer = 0;
    addEventListener("resize", () => {
      if (innerWidth === width) return;
      width = innerWidth;
      clearTimeout(timer);
      timer = setTimeout(drawAll, 150);
    });
  }
})();
