"use strict";
// Chart of cost against accuracy under the reader's assumptions, as charts/cost_accuracy.py. No DOM here.
const scatter = (() => {
  const is = (value) => value !== null && value !== undefined;
  // As in charts/cost_accuracy.py.
  const maxErrorBars = 40;
  const leftEdge = 0.06;
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

  // Above and to the left of a point of the front lies no other point; at the plot's left edge there is no room.
  const labelSide = (costs) => {
    const wide = redraw.needsLog(costs);
    const xs = across(costs, wide);
    const [low, high] = [Math.min(...xs), Math.max(...xs)];
    return (value) => across([value], wide)[0] - low < (high - low) * leftEdge ? "bottom right" : "top left";
  };

  const referenceLine = (y, text, dash) => ({
    type: "scatter", x: [0, 1], y: [y, y], xaxis: "x2", mode: "lines+text", line: { dash, width: 1.5 }, text: ["", text],
    textposition: "top left", textfont: { size: 12 }, name: text, showlegend: false, meta: { colour: "ink" }, hoverinfo: "skip",
  });

  const tooltip = (context, index, isPlain) => {
    const cell = context.facts.cells[index];
    const figures = context.derived.money[index];
    const price = context.derived.prices[cell.machine];
    const basis = price.missing === undefined ? ` (${decision.basisOf(price)} price)` : "";
    const lines = [
      isPlain ? cell.name : cell.label,
      `accuracy ${wording.percent(cell.accuracy.value)} (${wording.interval(cell.accuracy, "percent") || "no interval"})`,
      is(figures.usd_per_run) ? `a run ${context.moneyFormat.amount(figures.usd_per_run.value)}${basis}` : `a run ${wording.seconds(decision.valueOf(figures.run_s))}`,
      `${wording.number(decision.valueOf(cell.samples_per_s))} samples/s`,
      is(cell.num_updates) ? `updates ${wording.fixed(cell.num_updates, 0)}` : "",
    ];
    return lines.filter(Boolean).map(redraw.escaped).join("<br>");
  };

  // Names of the three groups of points in the legend.
  const names = (facts, state) => {
    if (state.view === "decide") return ["recommended", is(state.accuracy) ? "gets enough right" : "good enough, as far as can be told", "gets fewer right"];
    if (!is(state.accuracy)) return ["chosen: the cheapest of these", `loses at most ${decision.points(facts.tolerance)}, as far as can be told`, "loses more"];
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
    if (is(facts.majority)) baselines.push(referenceLine(facts.majority, `${isPlain ? "always the commonest answer" : "majority class"} ${wording.percent(facts.majority)}`, "dot"));
    if (is(state.accuracy)) baselines.push(referenceLine(state.accuracy, `needed ${wording.percent(state.accuracy)}`, "solid"));
    return baselines;
  };

  const group = (context, members, style, drawn) => {
    const estimates = members.map((index) => context.facts.cells[index].accuracy);
    return {
      type: "scatter", mode: "markers+text", marker: { symbol: members.map((index) => drawn.symbol(index, style.symbol)), size: style.size }, name: style.name, meta: { colour: style.colour },
      x: members.map((index) => drawn.cost(index)), y: estimates.map((estimate) => estimate.value),
      error_y: {
        type: "data", symmetric: false, thickness: 1, width: 3, visible: drawn.shown.length <= maxErrorBars,
        array: estimates.map((estimate) => ranking.bound(estimate, "high") - estimate.value),
        arrayminus: estimates.map((estimate) => estimate.value - ranking.bound(estimate, "low")),
      },
      text: members.map((index) => drawn.label(index)), textposition: members.map((index) => drawn.side(drawn.cost(index))),
      cliponaxis: false, hoverinfo: "text", hovertext: members.map((index) => tooltip(context, index, drawn.isPlain)),
    };
  };

  // {data, layout, label, title}; null if no cell has both a cost and an accuracy.
  const chart = (item, context, chosen, state) => {
    const { facts, derived, moneyFormat } = context;
    const hasDollars = facts.cells.some((cell, index) => cell.kind === "fine_tune" && cell.num_ok > 0 && is(derived.money[index].usd_per_run));
    const cost = (index) => hasDollars ? moneyFormat.convert(decision.valueOf(derived.money[index].usd_per_run)) : decision.valueOf(derived.money[index].run_s);
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
      if (isPlain) return index === chosen.pick ? "recommended" : "";
      return named.has(placeOf.get(index)) ? redraw.escaped(facts.cells[index].mark) : "";
    };
    const machines = [...new Set(shown.map((index) => facts.cells[index].machine))];
    const symbolOf = new Map(machines.map((machine, place) => [machine, symbols[place % symbols.length]]));
    // With several machines, the symbol shows the machine, hollow if its group's symbol is.
    const symbol = (index, alone) => {
      if (machines.length < 2 || (isPlain && index === chosen.pick)) return alone;
      return symbolOf.get(facts.cells[index].machine) + (alone.endsWith("-open") ? "-open" : "");
    };
    const drawn = { cost, shown, label, isPlain, symbol, side: labelSide(costs) };
    const rivals = new Set(chosen.rivals);
    const [pickName, rivalName, belowName] = names(facts, state);
    const groups = [
      [{ name: pickName, colour: "pick", symbol: "star", size: 17 }, shown.filter((index) => index === chosen.pick)],
      [{ name: rivalName, colour: "series-1", symbol: "circle", size: 10 }, shown.filter((index) => rivals.has(index) && index !== chosen.pick)],
      [{ name: belowName, colour: "quiet", symbol: "circle-open", size: 10 }, shown.filter((index) => !rivals.has(index) && index !== chosen.pick)],
    ];
    const data = groups.filter(([, members]) => members.length).map(([style, members]) => group(context, members, style, drawn));
    if (machines.length > 1) data.push(...machines.map((machine) => ({
      type: "scatter", x: [null], y: [null], mode: "markers", marker: { symbol: symbolOf.get(machine), size: 10 },
      name: redraw.escaped(facts.machines[machine].label), meta: { colour: "ink" }, hoverinfo: "skip",
    })));
    data.push({
      type: "scatter", x: front.map((place) => points[place][0]), y: front.map((place) => points[place][1]), mode: "lines", zorder: -1,
      line: { shape: "hv", width: 2, dash: "dot" }, name: isPlain ? "nothing measured beats these in both" : "front of cost and accuracy", meta: { colour: "pick" }, hoverinfo: "skip",
    }, ...lines(facts, state));
    const basis = redraw.basisText(context, shown);
    const unit = hasDollars ? (isPlain ? `cost of a training run, ${moneyFormat.code} (${basis})` : `${moneyFormat.code} a run, ${basis}`) : "seconds a run (no price)";
    const { layout } = item.figure;
    const yTitle = { ...layout.yaxis.title, text: isPlain ? "texts it gets right" : "test accuracy" };
    const xaxis = { ...layout.xaxis, ...redraw.costAxis(costs, costs, hasDollars ? wording.sign(moneyFormat.code) : "") };
    xaxis.title = { ...layout.xaxis.title, text: unit };
    const lead = `${shown.length} configurations; front from ${wording.percent(points[front[0]][1])} to ${wording.percent(points[front[front.length - 1]][1])}`;
    return { data, layout: { ...layout, xaxis, yaxis: { ...layout.yaxis, title: yTitle } }, label: `Scatter plot of the cost of a run against test accuracy: ${lead}.`,
      title: isPlain ? "What a training run costs, and how many texts the model gets right" : item.title };
  };

  return { chart };
})();
