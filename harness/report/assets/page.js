"use strict";
// The page at work: a state in the address, figures and charts that follow it. Nothing here reads a text as HTML.
(() => {
  const is = (value) => value !== null && value !== undefined;
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const find = (id) => document.getElementById(id);
  const root = document.documentElement;
  const facts = whatif.unpack(read("facts"));
  const own = address.own(facts);
  const written = decision.purse(own.values); // in which Python wrote amounts
  const base = whatif.derive(facts, own);
  const charts = read("figures").filter((item) => find(item.key)).map((item) => ({ ...item, title: find(item.key).previousElementSibling.textContent }));
  let state = own;
  let context = { facts, base, derived: base, written, money: written, values: own.values };
  let chosen = ranking.choose(facts, base, own);
  let version = 0; // of what charts are laid from

  const isOwn = () => address.changes(facts, state).length === 0;

  document.querySelectorAll("table.cells, table.figures, table.plain").forEach(tables.enhance);

  const heads = [...document.querySelectorAll("thead th, [data-recode]")].filter((one) => new RegExp(`\\b${written.code}\\b`).test(one.textContent))
    .map((one) => ({ box: one.querySelector("button") || one, text: one.textContent }));

  // Words that Python made of the report's own assumptions say so once these have changed.
  const stale = [...document.querySelectorAll("th")].filter((one) => one.textContent === "what is in it")
    .map((one) => ({ box: one.querySelector("button") || one, text: one.textContent }));

  const fillTiles = () => {
    const box = find("tiles");
    if (!box || chosen.pick === null) return;
    const found = (state.view === "decide" ? decision.plainTiles : decision.tiles)(facts, context.derived, chosen, state);
    found.forEach((tile, index) => {
      const [label, told] = box.children[index].children;
      const [figure, mark, note] = told.children;
      label.textContent = tile.label;
      figure.textContent = tile.value;
      mark.textContent = !tile.basis ? "" : /values$/.test(tile.basis) ? tile.basis : tile.basis + " price";
      mark.className = tile.basis ? "basis basis-" + tile.basis.replace(" ", "-") : "";
      mark.hidden = !tile.basis;
      note.textContent = tile.note;
    });
  };

  const fillAnswer = () => {
    const box = find("decision");
    if (!box) return;
    const { lead, more } = decision.sentence(facts, context.derived, chosen, state);
    box.querySelector(".say").textContent = lead;
    box.querySelector(".more").textContent = more.join(" ");
    const name = box.querySelector(".hand-over");
    name.hidden = chosen.pick === null;
    if (chosen.pick !== null) {
      const cell = facts.cells[chosen.pick];
      name.querySelector("code").textContent = cell.name;
      name.querySelector("span").textContent = cell.words;
    }
    box.classList.toggle("for-decide", isOwn() && !is(state.accuracy) && !is(state.machine));
    find("tiles").hidden = chosen.pick === null;
  };

  const fillPicked = () => {
    for (const row of document.querySelectorAll("#cell-table tbody tr[data-cell]")) {
      const isPicked = Number(row.dataset.cell) === chosen.pick;
      if (row.classList.contains("picked") === isPicked) continue;
      row.classList.toggle("picked", isPicked);
      const mark = row.querySelector(".chosen");
      if (mark) mark.remove();
      if (isPicked) row.cells[0].append(panel.make("span", { className: "chosen", textContent: "chosen above" }));
    }
  };

  // What differs from the report as it was written, in words, and a mark on every text that still says the old.
  const marks = [...document.querySelectorAll("[data-written]")].map((box) => {
    const mark = panel.make("span", { className: "written", hidden: true, textContent: "As the report was written: " });
    box.prepend(mark);
    return mark;
  });
  const shownValue = (input, value) => {
    if (!is(value)) return "not given";
    if (!input.is_number) return panel.words[value] || String(value);
    return (/(_fraction(_|$)|_accuracy$)/.test(input.name) ? wording.percent(value) : String(value)) + (input.unit ? " " + input.unit : "");
  };
  const fillChanges = () => {
    const names = new Set(address.changes(facts, state));
    const told = facts.machines.filter((machine) => names.has("price." + machine.id)).map((machine) => {
      const choice = machine.choices[state.choices[facts.machines.indexOf(machine)]];
      return `${machine.label} as ${choice.instance || "given"}`;
    });
    for (const input of facts.inputs) if (names.has(input.name)) told.push(`${input.title}: ${shownValue(input, state.values[input.name])}`);
    const box = find("changes");
    box.hidden = !told.length;
    box.querySelector("span").textContent = told.length ? `Changed from the report as it was written: ${told.join("; ")}.` : "";
    for (const mark of marks) mark.hidden = isOwn();
    for (const head of stale) head.box.textContent = head.text + (isOwn() ? "" : ", as the report was written");
    for (const place of document.querySelectorAll("[data-machine]")) {
      const price = context.derived.prices[Number(place.dataset.machine)];
      place.hidden = isOwn();
      place.textContent = "Now: " + (price.missing || `${context.money.perHour(price.usd_per_hour)} an hour, ${price.instance || "as given"}, ${panel.words[price.plan]}`);
    }
  };

  const layOut = (item) => {
    if (item.version === version) return item.laid;
    item.version = version;
    const plain = { data: item.figure.data, layout: item.figure.layout, title: item.title };
    const isCost = item.key === "chart-cost";
    const asWritten = isOwn() && (!isCost || (state.view === "engineer" && !is(state.accuracy) && !is(state.machine)));
    item.laid = asWritten ? plain : isCost ? scatter.chart(item, context, chosen, state) || plain : redraw.chart(item, context);
    return item.laid;
  };
  const draw = (item) => {
    const box = find(item.key);
    if (drawing.isHidden(box)) return;
    const laid = layOut(item);
    item.drawn = version;
    drawing.draw(box, laid, item.figure.layout.height);
    if (laid.title && laid.title !== box.previousElementSibling.textContent) box.previousElementSibling.textContent = laid.title;
    if (laid.label) box.setAttribute("aria-label", laid.label);
  };
  const drawAll = () => charts.forEach(draw);
  const follows = (item) => item.key === "chart-cost" || item.figure.layout.meta;
  let frame = 0;
  const drawLater = () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => charts.filter((item) => !is(item.drawn) || (item.drawn !== version && follows(item))).forEach(draw));
  };

  let controls = null;
  const apply = (next, isFirst = false) => {
    const before = state;
    state = next;
    const isSound = !address.clashes(state.values).length;
    if (isSound) {
      version += 1;
      const derived = whatif.derive(facts, state);
      context = { facts, base, derived, written, money: decision.purse(state.values), values: state.values };
      chosen = ranking.choose(facts, derived, state);
      root.dataset.view = state.view;
      for (const one of document.querySelectorAll("#views button")) one.setAttribute("aria-pressed", String(one.dataset.to === state.view));
      if (!isFirst || !isOwn()) squares.fill(context);
      for (const head of heads) {
        const text = context.money.recode(head.text, written.code);
        if (head.box.textContent !== text) head.box.textContent = text;
      }
      fillTiles();
      fillAnswer();
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
      location.hash = fragment; // a browser that lets no file change its address
    }
  };
  const recall = (isFirst) => {
    const fragment = location.hash.slice(1);
    const place = fragment && !fragment.includes("=") ? find(fragment) : null;
    const [next, ignored] = place ? [{ ...own, view: "engineer" }, []] : address.parse(facts, fragment);
    apply(next, isFirst);
    find("ignored").textContent = ignored.length ? `Not understood in the address, and left out: ${ignored.join(", ")}.` : "";
    if (place) place.scrollIntoView();
  };

  // Links within the page would write over the state in its address.
  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest('a[href^="#"]');
    const place = link && find(link.getAttribute("href").slice(1));
    if (!place) return;
    event.preventDefault();
    place.setAttribute("tabindex", "-1");
    place.focus({ preventScroll: true });
    place.scrollIntoView();
  });

  const csvSaid = find("csv-said");
  if (csvSaid) {
    const text = read("csv");
    const about = () => isOwn() ? "" : " Its figures are the report's as it was written.";
    find("copy-csv").addEventListener("click", async () => {
      csvSaid.textContent = await tables.copy(text) ? "Copied." + about() : "The browser refused; use the download.";
    });
    find("download-csv").addEventListener("click", () => {
      const link = panel.make("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: "cells.csv" });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      csvSaid.textContent = "Saved." + about();
    });
  }

  const group = find("map-group");
  if (group) {
    group.addEventListener("change", () => {
      for (const one of document.querySelectorAll(".map-group")) one.hidden = one.dataset.group !== group.value;
      drawLater();
    });
  }

  find("views").hidden = false;
  for (const one of document.querySelectorAll("#views button")) one.addEventListener("click", () => set({ view: one.dataset.to }));
  if (find("controls")) {
    controls = panel.build(find("controls"), find("assumptions"), facts, own, () => state, set);
    find("reset").addEventListener("click", () => {
      apply({ ...own, view: state.view });
      find("needed").focus();
    });
  }
  recall(true);
  addEventListener("hashchange", () => recall(false));

  if (charts.length) {
    drawAll();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
    addEventListener("beforeprint", () => { root.dataset.print = "yes"; drawAll(); });
    addEventListener("afterprint", () => { delete root.dataset.print; drawAll(); });
    let before = innerWidth;
    let waiting = 0;
    addEventListener("resize", () => {
      if (innerWidth === before) return;
      before = innerWidth;
      clearTimeout(waiting);
      waiting = setTimeout(drawAll, 150);
    });
  }

  root.dataset.ready = "yes";
})();
