"use strict";
// Charts of money laid anew for other assumptions: figures in, Plotly's data and layout out. No DOM here.
// A trace's `meta` says which `figure` of which `cells` stands on which `axis`; a layout's, how its axis is ranged.
const redraw = (() => {
  const is = (value) => value !== null && value !== undefined;
  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const each = (value, change) => Array.isArray(value) ? value.map((one, index) => each(one, (leaf, place) => change(leaf, [index, ...place]))) : change(value, []);
  const at = (value, place) => place.reduce((found, index) => found === null || found === undefined ? found : found[index], value);

  // In a text that Python wrote, its amount, interval and basis make way for the new ones.
  const swap = (text, before, after) => {
    if (typeof text !== "string" || !text) return text;
    const marks = [["interval", "\u0001"], ["amount", "\u0002"], ["basis", "\u0003"]];
    let shown = text;
    for (const [part, mark] of marks) if (before[part]) shown = shown.replace(escaped(before[part]), () => mark);
    for (const [part, mark] of marks) shown = shown.replace(mark, () => escaped(after[part]));
    return shown;
  };

  // How amounts of money ran in Python's text, and how they run now.
  const pair = (context, cell, before, after) => {
    const words = (derived, estimate, purse) => ({
      amount: is(estimate) ? purse.amount(estimate.value) : "not known",
      interval: purse.interval(estimate),
      basis: (decision.basisOf(derived.prices[context.facts.cells[cell].machine]) || "no") + " price",
    });
    return [words(context.base, before, context.written), words(context.derived, after, context.money)];
  };

  const trace = (one, context) => {
    const live = one.meta;
    if (!live || !live.figure) return one;
    const names = live.figure.split("|");
    const find = (derived, cell) => is(cell) ? names.map((name) => derived.money[cell][name]).find(is) : null;
    const estimates = (place) => { const cell = at(live.cells, place); return [cell, find(context.base, cell), find(context.derived, cell)]; };
    const value = (estimate) => is(estimate) ? context.money.convert(live.end ? ranking.bound(estimate, live.end) : estimate.value) : null;
    const laid = { ...one, [live.axis]: each(live.cells, (cell) => value(find(context.derived, cell))) };
    const bars = "error_" + live.axis;
    if (one[bars]) {
      const reach = (side) => live.cells.map((cell) => {
        const found = find(context.derived, cell);
        return is(found) ? Math.abs(context.money.convert(ranking.bound(found, side) - found.value)) : null;
      });
      laid[bars] = { ...one[bars], array: reach("high"), arrayminus: reach("low") };
    }
    for (const key of ["text", "hovertext"]) {
      if (Array.isArray(one[key])) laid[key] = each(one[key], (text, place) => {
        const [cell, before, after] = estimates(place);
        return is(cell) ? swap(text, ...pair(context, cell, before, after)) : text;
      });
    }
    if (live.axis === "z") laid.zmax = Math.max(0, ...laid.z.flat().filter(is));
    return laid;
  };

  // A curve over dollars: each point is seconds at its machine's hourly price, and the labels of its examples where it has some.
  const curve = (one, context) => {
    const live = one.meta;
    if (!live || !live.seconds) return one;
    const own = context.facts.values;
    const paid = (derived, purse, values, index) => {
      const [cell, seconds] = [live.cells[index], live.seconds[index]];
      const price = is(cell) ? derived.prices[context.facts.cells[cell].machine] : null;
      if (!price || price.missing !== undefined) return null;
      const usd = formulas.usd_of_seconds({ usd_per_hour: price.usd_per_hour, seconds });
      return purse.convert(live.labels ? usd + live.labels[index] * values["value.label_usd"] : usd);
    };
    const x = live.seconds.map((_, index) => paid(context.derived, context.money, context.values || own, index));
    const words = (value, purse) => ({ amount: is(value) ? wording.amount(value, purse.code) : "not known" });
    const hovertext = one.hovertext.map((text, index) => swap(text, words(paid(context.base, context.written, own, index), context.written), words(x[index], context.money)));
    return { ...one, x, hovertext };
  };

  const logTicks = (values) => values.length > 0 && Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > 10;

  const plain = (value) => value.toFixed(12).replace(/0+$/, "").replace(/\.$/, "");

  // As figures.cost_axis.
  const costAxis = (values, ends, unit) => {
    if (!values.length) return {};
    const [low, high] = [Math.min(...values), Math.max(...values)];
    if (!logTicks(ends)) {
      const room = (high - low) * 0.12 || Math.abs(high) * 0.12 || 0.12;
      return { type: "linear", range: [Math.max(0, low - room), high + room], tickprefix: unit, tickvals: null, ticktext: null, tickmode: "auto" };
    }
    const [from, to] = [Math.log10(Math.min(...values.filter((one) => one > 0))), Math.log10(high)];
    const room = (to - from) * 0.08;
    let ticks = [];
    for (let power = Math.floor(from - room); power < Math.ceil(to + room); power += 1) for (const digit of [1, 2, 5]) ticks.push(digit * 10 ** power);
    ticks = ticks.filter((tick) => from - room <= Math.log10(tick) && Math.log10(tick) <= to + room);
    if (ticks.length > 8) ticks = ticks.filter((tick) => tick.toExponential().startsWith("1e"));
    return { type: "log", range: [from - room, to + room], tickvals: ticks, ticktext: ticks.map((tick) => unit + plain(tick)), tickmode: "array", tickprefix: "" };
  };

  // The words of what these cells' prices rest on, as charts.basis_words.
  const basisWords = (context, derived, cells) => {
    const bases = [...new Set(cells.map((cell) => decision.basisOf(derived.prices[context.facts.cells[cell].machine])).filter(is))].sort();
    return (bases.length ? bases.join(" and ") : "no") + " price";
  };

  // {data, layout, title} of a chart; the very figure of the report where nothing of it is money.
  const chart = (item, context) => {
    const { data, layout } = item.figure;
    const ranged = layout.meta;
    if (!ranged) return { data, layout, title: item.title };
    const laid = data.map((one) => curve(trace(one, context), context));
    const cells = [...new Set(data.flatMap((one) => one.meta && one.meta.cells ? one.meta.cells.flat(2).filter(is) : []))];
    const say = (text) => context.money.recode(text.replace(ranged.basis, () => basisWords(context, context.derived, cells)), context.written.code);
    const reached = { ...layout };
    if (ranged.axis) {
      const values = laid.flatMap((one) => one.meta && one.meta.cells ? one[ranged.axis].filter(is) : []);
      const name = ranged.axis + "axis";
      const fit = ranged.kind === "zero" ? zeroAxis(laid, ranged, context) : costAxis(values, ranged.kind === "spread" ? values : ends(laid), wording.sign(context.money.code));
      reached[name] = { ...layout[name], ...fit };
      if (reached[name].title) reached[name].title = { ...reached[name].title, text: say(reached[name].title.text || "") };
    }
    return { data: laid, layout: reached, title: say(item.title) };
  };

  // Where each curve ends; a gap parts two of them in one trace.
  const ends = (laid) => laid.flatMap((one) => one.meta && one.meta.seconds ? one.x.filter((value, index) => is(value) && !is(one.x[index + 1])) : []);

  const zeroAxis = (laid, ranged, context) => {
    let most = 0;
    for (const one of laid) {
      if (!one.meta || !one.meta.figure) continue;
      one[ranged.axis].forEach((value, index) => {
        const bars = one["error_" + ranged.axis];
        if (is(value)) most = Math.max(most, value + (bars ? bars.array[index] || 0 : 0));
      });
    }
    const longer = ranged.axis === "x" && context.money.code !== context.written.code ? 0.5 : 0; // words stand behind the bars
    return { range: [0, (most || 1) * (ranged.room + longer)], tickprefix: wording.sign(context.money.code) };
  };

  return { chart, trace, swap, costAxis, logTicks, basisWords, escaped };
})();
