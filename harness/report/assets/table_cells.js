"use strict";
// Rewrites the figures in tables when an assumption changes; until then the tables stay as Python wrote them.
const tableCells = (() => {
  const is = (value) => value !== null && value !== undefined;

  const foldsOf = (box) => {
    const folds = [];
    for (let fold = box.closest("details"); fold; fold = fold.parentElement.closest("details")) folds.push(fold);
    return folds;
  };

  // Collect the table cells once, after tables.js has added its buttons.
  const collect = () => [...document.querySelectorAll("[data-figure]")].map((box) => {
    const inside = box.firstElementChild;
    return {
      box, inside, folds: foldsOf(box), text: inside.querySelector("bdi") || inside, index: Number(box.closest("[data-cell]").dataset.cell), path: box.dataset.figure.split("."),
      rests: box.hasAttribute("data-rests"), isLined: box.closest(".figures") !== null,
      none: inside.classList.contains("none") ? inside.textContent : box.closest("#money") ? "not known" : wording.notMeasured,
    };
  });
  const figureOf = (cell, { derived }) => {
    const figure = cell.path[0] === "worth" ? (derived.worth[cell.index] || {})[cell.path[1]] : derived.money[cell.index][cell.path[0]];
    return is(figure) ? (typeof figure === "number" ? { value: figure, low: null, high: null } : figure) : null;
  };
  // Text for a missing figure, by its name; other names use the table's own.
  const missingText = new Map(Object.entries({
    payback_months: "never", return_fraction: "nothing is paid before", break_even_accuracy: "accuracy makes no difference",
    break_even_items: "no number is enough", energy_kwh: wording.notMeasured, energy_usd: wording.notMeasured, energy_gco2e: wording.notMeasured,
  }));
  // [text, interval, sort value].
  const textOf = (name, estimate, moneyFormat) => {
    const { value } = estimate;
    const measured = (unit, factor = 1) => [`${wording.number(value * factor)} ${unit}`,
      wording.interval({ value: value * factor, low: is(estimate.low) ? estimate.low * factor : null, high: is(estimate.high) ? estimate.high * factor : null }, "number"), value];
    if (name === "break_even_accuracy" && value > 1) return [`none (${wording.percent(value)})`, "", value];
    if (name === "break_even_accuracy" && value <= 0) return ["any", "", value];
    if (name.endsWith("_fraction") || name.endsWith("accuracy")) return [wording.percent(value), wording.interval(estimate, "percent"), value];
    if (name.endsWith("_months")) return measured("months");
    if (name.endsWith("_items")) return [wording.fixed(value, 0), "", value];
    if (name === "energy_kwh") return value >= 1 ? measured("kWh") : measured("Wh", 1000);
    if (name === "energy_gco2e") return measured("gCO2e");
    return [moneyFormat.amount(value), moneyFormat.interval(estimate), moneyFormat.convert(value)];
  };
  const extraLines = (cell, name, spread, context) => {
    const measured = context.facts.cells[cell.index];
    if (name.startsWith("energy_")) return [spread, measured.joules ? "" : "estimate"].filter(Boolean);
    const lines = [spread, decision.basisLabel(context.derived.prices[measured.machine])];
    const share = context.derived.money[cell.index].usd_per_1000_samples_of_share;
    if (name === "usd_per_1000_samples" && cell.isLined && share) lines.push(`${context.moneyFormat.amount(share.value)} for ${measured.gpu_share[0]} of ${measured.gpu_share[1]} GPUs`);
    if (name === "usd_to_target" && !cell.box.closest("#money")) lines.push(measured.missed_target);
    return lines.filter(Boolean);
  };
  const setExtra = (cell, lines, isDoubtful) => {
    const before = [...cell.box.querySelectorAll(":scope > .extra")];
    const wanted = cell.isLined ? lines : lines.length ? [lines.join(", ")] : [];
    while (before.length > wanted.length) before.pop().remove();
    wanted.forEach((line, index) => {
      if (!before[index]) {
        before[index] = panel.make("span", { className: "extra" });
        (before[index - 1] || cell.inside).after(before[index]);
      }
      if (before[index].textContent !== line) before[index].textContent = line;
      before[index].classList.toggle("doubtful", isDoubtful && !cell.isLined);
    });
  };
  const fillMachineCell = (cell, context) => {
    cell.before = cell.before || [...cell.box.querySelectorAll(":scope > .extra")].map((line) => line.textContent);
    const content = machineComparison.tableCell(cell.path[1], cell.index, context, cell.before);
    if (!content) return;
    cell.text.textContent = content.text;
    cell.inside.classList.toggle("none", !is(content.sort));
    if (typeof content.sort === "number") cell.box.dataset.sort = content.sort; else delete cell.box.dataset.sort;
    if (content.title !== undefined) cell.box.title = content.title;
    setExtra(cell, content.lines, false);
  };
  const fillOne = (cell, context) => {
    if (cell.path[0] === "side") { fillMachineCell(cell, context); return; }
    const estimate = figureOf(cell, context);
    const name = cell.path[cell.path.length - 1];
    const [text, spread, raw] = estimate ? textOf(name, estimate, context.moneyFormat) : [missingText.get(name) || cell.none, "", null];
    if (cell.text.textContent !== text) cell.text.textContent = text;
    cell.inside.classList.toggle("none", !estimate);
    if (estimate) cell.box.dataset.sort = raw; else delete cell.box.dataset.sort;
    const price = context.derived.prices[context.facts.cells[cell.index].machine];
    const lost = context.derived.money[cell.index].missing;
    if (!estimate && lost) cell.box.title = lost;
    if (cell.rests) setExtra(cell, estimate ? extraLines(cell, name, spread, context) : [], price.missing !== undefined || price.basis === "assumed" || price.doubtful);
  };

  let all = null;
  const fill = (context) => {
    all = all || collect();
    for (const cell of all) if (cell.folds.every((fold) => fold.open)) fillOne(cell, context); // the others when they are unfolded
  };

  return { fill };
})();
