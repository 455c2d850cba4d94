"use strict";
// Chart of cost against accuracy under the reader's assumptions, as charts/cost_accuracy.py. No DOM here.
const scatter = (() => {
  const is = (value) => value !== null && value !== undefined;
  // As in charts/cost_accuracy.py.
  const maxErrorBars = 40;
  const labelWidth = 0.3;
  const labelHeight = 0.15;

  const symbols = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon"]; // SYMBOLS of charts/base.py

  const across = (values, wide) => values.map((value) => wide ? Math.log10(value) : value);

  // Indices of the points to label: the choice, the best, and those of the front that leave labels legible.
  const toLabel = (points, first, front, wide) => {
    const xs = across(points.map((point) => point[0]), wide);
    const ys = points.map((point) => point[1]);
    const width = Math.max(...xs) - Math.min(...xs) || 1;
    const height = Math.max(...ys) - Math.min(...ys) || 1;
    const labelled = [];
    for (const index of [...first, ...[...front].reverse()]) {
      const isCrowded = labelled.some((other) => Math.abs(xs[index] - xs[other]) < labelWidth * width && Math.abs(ys[index] - ys[other]) < labelHeight * height);
      if (!isCrowded) labelled.push(index);
    }
    return new Set(labelled);
  };

  const referenceLine = (y, text, dash) => ({
    type: "scatter", x: [0, 1], y: [y, y], xaxis: "x2", mode: "lines", line: { dash, width: 1.5 },
    name: text, meta: { colour: "ink", end_label: true }, hoverinfo: "skip",
  });

  const tooltip = (context, index, isPlain) => {
    const cell = context.facts.cells[index];
    const figures = context.derived.money[index];
    const price = context.derived.prices[cell.machine];
    const basis = price.missing === undefined ? ` (${decision.basisOf(price)} price)` : "";
    const lines = [
      isPlain ? cell.plain : cell.label,
      `accuracy ${wording.percent(cell.accuracy.value)} (${wording.interval(cell.accuracy, "percent") || "no interval"})`,
      is(figures.usd_billed) ? `${context.moneyFormat.amount(figures.usd_billed.value)} on the bill${basis}` : `a training ${wording.seconds(decision.valueOf(figures.run_s))}`,
      `${wording.number(decision.valueOf(cell.samples_per_s))} samples/s`,
      is(cell.num_updates) ? `${wording.fixed(cell.num_updates, 0)} updates` : "",
    ];
    return lines.filter(Boolean).map(redraw.escaped).join("<br>");
  };

  // Names of the three groups of points in the legend.
  const names = (facts, state) => {
    if (state.view === "decide") return ["the choice", is(state.accuracy) ? "gets enough right" : "good enough", "gets fewer right"];
    if (!is(state.accuracy)) return ["chosen: the cheapest of these", `loses at most ${decision.points(facts.tolerance)} (expected)`, "loses more"];
    const need = wording.percent(state.accuracy);
    return ["chosen: the cheapest of these", `reaches ${need}`, `below ${need}`];
  };

  const lines = (facts, state) => {
    const isPlain = state.view === "decide";
    const baselines = [];
    const measured = (index, text, dash) => {
      if (!is(index)) return;
      const value = facts.cells[index].accuracy.value;
      baselines.push(referenceLine(value, `${text} ${wording.percent(value)}`, dash));
    };
    measured(facts.features, isPlain ? "the model without training" : "frozen encoder", "dashdot");
    measured(facts.tfidf, isPlain ? "counting words" : "TF-IDF", "dash");
    if (is(facts.majority)) baselines.push(referenceLine(facts.majority, `${isPlain ? "always the most common answer" : "majority class"} ${wording.percent(facts.majority)}`, "dot"));
    if (is(state.accuracy)) baselines.push(referenceLine(state.accuracy, `needed ${wording.percent(state.accuracy)}`, "solid"));
    return baselines;
  };

  const group = (context, members, style, drawn) => {
    const estimates = members.map((index) => context.facts.cells[index].accuracy);
    return {
      type: "scatter", mode: "markers", marker: { symbol: members.map((index) => drawn.symbol(index, style.symbol)), size: style.size }, name: style.name, meta: { colour: style.colour, point_labels: members.map((index) => drawn.label(index)) },
      x: members.map((index) => drawn.cost(index)), y: estimates.map((estimate) => estimate.value),
      error_y: {
        type: "data", symmetric: false, thickness: 1, width: 3, visible: drawn.shown.length <= maxErrorBars,
        array: estimates.map((estimate) => ranking.bound(estimate, "high") - estimate.value),
        arrayminus: estimates.map((estimate) => estimate.value - ranking.bound(estimate, "low")),
      },
      cliponaxis: false, hoverinfo: "text", hovertext: members.map((index) => tooltip(context, index, drawn.isPlain)),
    };
  };

  // As _finding of charts/cost_accuracy.py.
  const finding = ({ facts, derived, moneyFormat }, chosen, hasDollars) => {
    if (!is(chosen.pick) || !is(facts.cells[chosen.pick].accuracy)) return "What a training costs, and how many texts it gets right";
    const figures = derived.money[chosen.pick];
    const cost = hasDollars ? moneyFormat.prose(decision.valueOf(figures.usd_billed)) : wording.seconds(decision.valueOf(figures.run_s));
    const subject = is(chosen.way) && chosen.way.index === chosen.pick ? "The choice" : "The best model";
    return `${subject} gets ${wording.percent(facts.cells[chosen.pick].accuracy.value)} of texts right ${hasDollars ? "for" : "in"} ${cost} a training`;
  };

  // {data, layout, label, title}; null if no cell has both a cost and an accuracy.
  const chart = (item, context, chosen, state) => {
    const { facts, derived, moneyFormat } = context;
    const isPriced = facts.cells.some((cell, index) => cell.kind === "fine_tune" && cell.num_ok > 0 && is(derived.money[index].usd_billed));
    const hasDollars = isPriced && ranking.comparableInDollars(facts, derived, chosen.compared);
    const cost = (index) => hasDollars ? moneyFormat.convert(decision.valueOf(derived.money[index].usd_billed)) : decision.valueOf(derived.money[index].run_s);
    const other = is(chosen.pick) && !chosen.compared.includes(chosen.pick) ? [chosen.pick] : []; // a chosen baseline
    const shown = [...chosen.compared, ...other].filter((index) => is(facts.cells[index].accuracy) && is(cost(index)));
    if (!shown.length) return null;
    const points = shown.map((index) => [cost(index), facts.cells[index].accuracy.value]);
    const costs = points.map((point) => point[0]);
    const front = ranking.front(points);
    const first = shown.flatMap((index, place) => index === chosen.pick || index === chosen.best ? [place] : []);
    const isPlain = state.view === "decide";
    const named = toLabel(points, first, front, redraw.needsLog(costs));
    const placeOf = new Map(shown.map((index, place) => [index, place]));
    const label = (index) => {
      if (isPlain) return index === chosen.pick ? "the choice" : "";
      return named.has(placeOf.get(index)) ? facts.cells[index].mark : "";
    };
    const machines = [...new Set(shown.map((index) => facts.cells[index].machine))];
    const symbolOf = new Map(machines.map((machine, place) => [machine, symbols[place % symbols.length]]));
    // With several machines, the symbol shows the machine, hollow if its group's symbol is.
    const symbol = (index, alone) => {
      if (machines.length < 2 || (isPlain && index === chosen.pick)) return alone;
      return symbolOf.get(facts.cells[index].machine) + (alone.endsWith("-open") ? "-open" : "");
    };
    const drawn = { cost, shown, label, isPlain, symbol };
    const rivals = new Set(chosen.rivals);
    const [pickName, rivalName, belowName] = names(facts, state);
    const groups = [
      [{ name: pickName, colour: "pick", symbol: "star", size: 17 }, shown.filter((index) => index === chosen.pick)],
      [{ name: rivalName, colour: "measure", symbol: "circle", size: 10 }, shown.filter((index) => rivals.has(index) && index !== chosen.pick)],
      [{ name: belowName, colour: "quiet", symbol: "circle-open", size: 10 }, shown.filter((index) => !rivals.has(index) && index !== chosen.pick)],
    ];
    const data = groups.filter(([, members]) => members.length).map(([style, members]) => group(context, members, style, drawn));
    if (machines.length > 1) data.push(...machines.map((machine) => ({
      type: "scatter", x: [null], y: [null], mode: "markers", marker: { symbol: symbolOf.get(machine), size: 10 },
      name: redraw.escaped(facts.machines[machine].label), meta: { colour: "ink" }, hoverinfo: "skip",
    })));
    data.push({
      type: "scatter", x: front.map((place) => points[place][0]), y: front.map((place) => points[place][1]), mode: "lines", zorder: -1,
      line: { shape: "hv", width: 2, dash: "dot" }, name: "front of cost and accuracy", showlegend: false, meta: { colour: "pick" }, hoverinfo: "skip",
    }, ...lines(facts, state));
    const basis = redraw.basisText(context, shown);
    const unit = hasDollars ? `${moneyFormat.code} a training, on the bill (${basis})` : `seconds a training (${isPriced ? "prices are examples" : "no price"})`;
    const { layout } = item.figure;
    const yTitle = { ...layout.yaxis.title, text: isPlain ? "texts it gets right" : "test accuracy" };
    const xaxis = { ...layout.xaxis, ...redraw.costAxis(costs, costs, hasDollars ? wording.sign(moneyFormat.code) : "") };
    xaxis.title = { ...layout.xaxis.title, text: unit };
    const lead = `${shown.length} configurations; front from ${wording.percent(points[front[0]][1])} to ${wording.percent(points[front[front.length - 1]][1])}`;
    return { data, layout: { ...layout, xaxis, yaxis: { ...layout.yaxis, title: yTitle } }, label: `Scatter plot of the cost of a training against test accuracy: ${lead}.`,
      title: finding(context, chosen, hasDollars) };
  };

  return { chart };
})();
