"use strict";
// Figures that stand in tables, rewritten from what was derived; what Python wrote stays until an assumption changes.
const squares = (() => {
  const is = (value) => value !== null && value !== undefined;

  // After the tables have got their buttons: those are looked at once.
  const found = () => [...document.querySelectorAll("[data-figure]")].map((box) => {
    const inside = box.firstElementChild;
    return {
      box, inside, text: inside.querySelector("bdi") || inside, cell: Number(box.closest("[data-cell]").dataset.cell), path: box.dataset.figure.split("."),
      rests: box.hasAttribute("data-rests"), isLined: box.closest(".figures") !== null,
      none: inside.classList.contains("none") ? inside.textContent : box.closest("#money") ? "not known" : wording.notMeasured,
    };
  });
  const figureOf = (square, { derived }) => {
    const figure = square.path[0] === "worth" ? (derived.worth[square.cell] || {})[square.path[1]] : derived.money[square.cell][square.path[0]];
    return is(figure) ? (typeof figure === "number" ? { value: figure, low: null, high: null } : figure) : null;
  };
  // What stands where there is no figure, by its name; else the table's own word.
  const none = new Map(Object.entries({
    payback_months: "never", return_fraction: "nothing is paid before", break_even_accuracy: "accuracy makes no difference",
    break_even_items: "no number is enough", energy_kwh: wording.notMeasured, energy_usd: wording.notMeasured, energy_gco2e: wording.notMeasured,
  }));
  // [text, interval, value as it sorts].
  const wordsOf = (name, estimate, money) => {
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
    return [money.amount(value), money.interval(estimate), money.convert(value)];
  };
  const extraLines = (square, name, spread, context) => {
    const cell = context.facts.cells[square.cell];
    if (name.startsWith("energy_")) return [spread, cell.joules ? "" : "estimate"].filter(Boolean);
    const lines = [spread, decision.basisLabel(context.derived.prices[cell.machine])];
    const share = context.derived.money[square.cell].usd_per_1000_samples_of_share;
    if (name === "usd_per_1000_samples" && square.isLined && share) lines.push(`${context.money.amount(share.value)} for ${cell.gpu_share[0]} of ${cell.gpu_share[1]} GPUs`);
    return lines.filter(Boolean);
  };
  const setExtra = (square, lines, isDoubtful) => {
    const before = [...square.box.querySelectorAll(":scope > .extra")];
    const wanted = square.isLined ? lines : lines.length ? [lines.join(", ")] : [];
    while (before.length > wanted.length) before.pop().remove();
    wanted.forEach((line, index) => {
      if (!before[index]) {
        before[index] = panel.make("span", { className: "extra" });
        (before[index - 1] || square.inside).after(before[index]);
      }
      if (before[index].textContent !== line) before[index].textContent = line;
      before[index].classList.toggle("doubtful", isDoubtful && !square.isLined);
    });
  };
  const fillSide = (square, context) => {
    square.before = square.before || [...square.box.querySelectorAll(":scope > .extra")].map((one) => one.textContent);
    const found = side.words(square.path[1], square.cell, context, square.before);
    if (!found) return;
    square.text.textContent = found.text;
    square.inside.classList.toggle("none", !is(found.sort));
    if (typeof found.sort === "number") square.box.dataset.sort = found.sort; else delete square.box.dataset.sort;
    if (found.title !== undefined) square.box.title = found.title;
    setExtra(square, found.lines, false);
  };
  const fillOne = (square, context) => {
    if (square.path[0] === "side") { fillSide(square, context); return; }
    const estimate = figureOf(square, context);
    const name = square.path[square.path.length - 1];
    const [text, spread, raw] = estimate ? wordsOf(name, estimate, context.money) : [none.get(name) || square.none, "", null];
    if (square.text.textContent !== text) square.text.textContent = text;
    square.inside.classList.toggle("none", !estimate);
    if (estimate) square.box.dataset.sort = raw; else delete square.box.dataset.sort;
    const price = context.derived.prices[context.facts.cells[square.cell].machine];
    const lost = context.derived.money[square.cell].missing;
    if (!estimate && lost) square.box.title = lost;
    if (square.rests) setExtra(square, estimate ? extraLines(square, name, spread, context) : [], price.missing !== undefined || price.basis === "assumed" || price.doubtful);
  };

  let all = null;
  const fill = (context) => {
    all = all || found();
    for (const square of all) fillOne(square, context);
  };

  return { fill };
})();
