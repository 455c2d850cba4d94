"use strict";
// Recomputes charts of money under the reader's assumptions: figures in, Plotly's data and layout out. No DOM here.
// A trace's `meta` names the `figure` and the `cells` that its `axis` shows; a layout's `meta` says how its axis is ranged.
const redraw = (() => {
  const is = (value) => value !== null && value !== undefined;
  const plainText = (text) => text.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  // Map the leaves of nested arrays; `change` gets each leaf and its path of indices.
  const mapLeaves = (value, change, path = []) =>
    Array.isArray(value) ? value.map((item, index) => mapLeaves(item, change, [...path, index])) : change(value, path);
  const at = (value, path) => path.reduce((inner, index) => is(inner) ? inner[index] : inner, value);

  const unknown = "not known";
  const basisOf = (derived, context, cell) =>
    (decision.basisOf(derived.prices[context.facts.cells[cell].machine]) || "no") + " price";

  // How a tooltip writes an amount: the styles of charts/money.py.
  const amountStyles = {
    amount: ({ amount }) => amount,
    with_basis: ({ amount, basis }) => `${amount}, ${basis}`,
    with_interval_and_basis: ({ amount, interval, basis }) => `${amount}${interval ? ` (${interval})` : ""} (${basis})`,
  };
  const amountText = (context, cell, estimate, style) => escaped(amountStyles[style]({
    amount: is(estimate) ? context.moneyFormat.amount(estimate.value) : unknown,
    interval: context.moneyFormat.interval(estimate),
    basis: basisOf(context.derived, context, cell),
  }));

  // A trace that shows one figure of each cell.
  const figureTrace = (trace, context) => {
    const { meta } = trace;
    const names = meta.figure.split("|");
    const read = (derived, cell) => is(cell) ? names.map((name) => derived.money[cell][name]).find(is) : null;
    const estimate = (cell) => read(context.derived, cell);
    const value = (cell) => {
      const found = estimate(cell);
      if (!is(found)) return meta.end ? 0 : null; // text without a bar begins at 0
      return context.moneyFormat.convert(meta.end ? ranking.bound(found, meta.end) : found.value);
    };
    // A cell without an amount in the report keeps the word that says why, until it gets one.
    const text = (cell, style, original) => is(estimate(cell)) || is(read(context.original, cell))
      ? amountText(context, cell, estimate(cell), style) : original;
    const drawn = { ...trace, [meta.axis]: mapLeaves(meta.cells, value) };
    const bars = "error_" + meta.axis;
    if (trace[bars]) {
      const length = (side) => meta.cells.map((cell) => {
        const found = estimate(cell);
        return is(found) ? Math.abs(context.moneyFormat.convert(ranking.bound(found, side) - found.value)) : null;
      });
      drawn[bars] = { ...trace[bars], array: length("high"), arrayminus: length("low") };
    }
    if (Array.isArray(trace.text)) drawn.text = mapLeaves(meta.cells, (cell, path) => text(cell, "amount", at(trace.text, path)));
    if (trace.customdata) drawn.customdata = mapLeaves(meta.cells, (cell, path) => {
      const [original, before, after] = at(trace.customdata, path);
      return [text(cell, meta.style, original), before, after];
    });
    if (meta.axis === "z") drawn.zmax = Math.max(0, ...drawn.z.flat().filter(is));
    return drawn;
  };

  // A curve over money: each point is seconds at its machines' hourly price, plus the labels of its examples if it has them.
  const curveTrace = (trace, context) => {
    const { cells, seconds, labels } = trace.meta;
    const amounts = seconds.map((duration, index) => {
      const priced = is(cells[index]) ? context.derived.money[cells[index]] : null; // its price is that of all its machines
      if (!priced || priced.missing !== undefined) return null;
      const usd = formulas.usd_of_seconds({ usd_per_hour: priced.usd_per_hour, seconds: duration });
      return labels ? usd + labels[index] * context.values["value.label_usd"] : usd;
    });
    const customdata = trace.customdata.map(([original, before, after], index) => {
      if (!is(cells[index])) return [original, before, after];
      return [escaped(is(amounts[index]) ? context.moneyFormat.amount(amounts[index]) : unknown), before, after];
    });
    return { ...trace, x: amounts.map(context.moneyFormat.convert), customdata };
  };

  const recomputeTrace = (trace, context) => {
    if (!trace.meta) return trace;
    if (trace.meta.figure) return figureTrace(trace, context);
    return trace.meta.seconds ? curveTrace(trace, context) : trace;
  };

  // As needs_log and cost_axis in charts/axes.py.
  const needsLog = (values) => values.length > 0 && Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > 10;
  const plain = (value) => value.toFixed(12).replace(/0+$/, "").replace(/\.$/, "");
  const costAxis = (values, ends, unit) => {
    if (!values.length) return {};
    const [low, high] = [Math.min(...values), Math.max(...values)];
    if (!needsLog(ends)) {
      const pad = (high - low) * 0.12 || Math.abs(high) * 0.12 || 0.12;
      return { type: "linear", range: [Math.max(0, low - pad), high + pad], tickprefix: unit, tickvals: null, ticktext: null, tickmode: "auto" };
    }
    const [from, to] = [Math.log10(Math.min(...values.filter((value) => value > 0))), Math.log10(high)];
    const pad = (to - from) * 0.08;
    let ticks = [];
    for (let power = Math.floor(from - pad); power < Math.ceil(to + pad); power += 1) for (const digit of [1, 2, 5]) ticks.push(digit * 10 ** power);
    ticks = ticks.filter((tick) => from - pad <= Math.log10(tick) && Math.log10(tick) <= to + pad);
    if (ticks.length > 8) ticks = ticks.filter((tick) => tick.toExponential().startsWith("1e"));
    return { type: "log", range: [from - pad, to + pad], tickvals: ticks, ticktext: ticks.map((tick) => unit + plain(tick)), tickmode: "array", tickprefix: "" };
  };

  // As basis_text in charts/money.py.
  const basisText = (context, cells) => {
    const bases = [...new Set(cells.map((cell) => decision.basisOf(context.derived.prices[context.facts.cells[cell].machine])).filter(is))].sort();
    return (bases.length ? bases.join(" and ") : "no") + " price";
  };

  // Amounts at which curves end; a gap separates two curves of one trace.
  const curveEnds = (traces) => traces.flatMap((trace) => trace.meta && trace.meta.seconds
    ? trace.x.filter((value, index) => is(value) && !is(trace.x[index + 1])) : []);

  // From 0 to the highest amount with its error bar, times `room`.
  const zeroAxis = (traces, { axis, room }, context) => {
    let highest = 0;
    for (const trace of traces) {
      if (!trace.meta || !trace.meta.figure) continue;
      const bars = trace["error_" + axis];
      trace[axis].forEach((value, index) => {
        if (is(value)) highest = Math.max(highest, value + (bars ? bars.array[index] || 0 : 0));
      });
    }
    const longer = axis === "x" && context.moneyFormat.code !== context.originalFormat.code ? 0.5 : 0; // for longer text behind the bars
    return { range: [0, (highest || 1) * (room + longer)], tickprefix: wording.sign(context.moneyFormat.code) };
  };

  // {data, layout, title} of a chart; a chart without money stays as it is.
  const chart = (item, context) => {
    const { data, layout } = item.figure;
    const { meta } = layout;
    if (!meta) return { data, layout, title: item.title };
    const traces = data.map((trace) => recomputeTrace(trace, context));
    const cells = [...new Set(data.flatMap((trace) => trace.meta && trace.meta.cells ? trace.meta.cells.flat(2).filter(is) : []))];
    const titleOf = () => {
      const { best } = meta;
      const machines = new Set(cells.map((cell) => context.facts.cells[cell].machine));
      const byExample = machines.size > 1 && [...machines].some((machine) => ranking.isExample(context.derived.prices[machine]));
      const cost = (cell) => context.derived.money[cell].usd_per_1000_samples;
      const priced = best && !byExample ? cells.filter((cell) => best.names[cell] && is(cost(cell))) : [];
      if (!priced.length) return best ? `${context.originalFormat.code} per 1,000 samples, ${meta.basis}` : item.title;
      const least = priced.reduce((one, other) => cost(other).value < cost(one).value ? other : one);
      return `${plainText(best.names[least])} ${best.predicate} (${meta.basis})`;
    };
    const retitle = (text) => context.moneyFormat.recode(text.replace(meta.basis, () => basisText(context, cells)), context.originalFormat.code);
    const changed = { ...layout };
    if (meta.axis) {
      const values = traces.flatMap((trace) => trace.meta && trace.meta.cells ? trace[meta.axis].filter(is) : []);
      const name = meta.axis + "axis";
      const range = meta.kind === "zero" ? zeroAxis(traces, meta, context)
        : costAxis(values, meta.kind === "spread" ? values : curveEnds(traces), wording.sign(context.moneyFormat.code));
      changed[name] = { ...layout[name], ...range };
      if (changed[name].title) changed[name].title = { ...changed[name].title, text: retitle(changed[name].title.text || "") };
    }
    return { data: traces, layout: changed, title: retitle(titleOf()) };
  };

  return { chart, costAxis, needsLog, basisText, escaped };
})();
