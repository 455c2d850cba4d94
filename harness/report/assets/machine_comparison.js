"use strict";
// Tables of machines side by side under the reader's assumptions, as decision/side_by_side.py and report/sections/machines.py.
const machineComparison = (() => {
  const is = (value) => value !== null && value !== undefined;

  // Seconds from ordering a machine to the end of a run, as in pricing/cost.py.
  const turnaround = (run_s, price, values) => {
    const before_s = price.plan === "own" ? 0 : values["prices.rental.startup_s"] + values["prices.rental.setup_s"];
    if (!is(run_s)) return null;
    if (price.plan !== "spot") return before_s + run_s.value;
    const work_s = recompute.spotSeconds(run_s.value, values);
    return is(work_s) ? before_s + work_s : null;
  };

  const read = (key, index, { facts, derived, values }) => {
    const cell = facts.cells[index];
    const money = derived.money[index];
    if (!is(cell.samples_per_s)) return null;
    if (key !== "in_time") return { fastest: cell.samples_per_s, per_1000: money.usd_per_1000_samples, run: money.usd_per_run, to_target: money.usd_to_target }[key];
    const seconds = turnaround(money.run_s, derived.prices[cell.machine], values);
    return is(seconds) && seconds <= facts.side.deadline_s ? money.usd_billed : null;
  };
  const isBetter = (key, one, other) => key === "fastest" ? one.value > other.value : one.value < other.value;

  // Each machine's best cell: {figure, label} or null.
  const bests = (key, context) => context.facts.side.machines.map((_, place) => {
    let best = null;
    for (const line of context.facts.side.lines) {
      const index = line.squares[place];
      const figure = line.is_ranked && is(index) ? read(key, index, context) : null;
      if (is(figure) && (best === null || isBetter(key, figure, best.figure))) best = { figure, index, label: line.label, missed: key === "to_target" ? context.facts.cells[index].missed_target : "" };
    }
    return best;
  });

  // Costs that rest on an example price are not ranked, as verdicts of decision/side_by_side.py.
  const rankAll = (key, cells, figures, { facts, derived }) => {
    const isExample = (index) => is(index) && is(facts.cells[index].samples_per_s) && ranking.isExample(derived.prices[facts.cells[index].machine]);
    if (key !== "fastest" && cells.flat().some(isExample)) return figures.map(() => [null, []]);
    return comparing.rankAll(figures, key === "fastest");
  };

  const bestCell = (key, place, context) => {
    const all = bests(key, context);
    if (!all[place]) return { text: "none", lines: [], sort: null };
    const [[first, level]] = rankAll(key, [all.map((one) => one && one.index)], [all.map((one) => one && one.figure)], context);
    const { figure, label, missed } = all[place];
    const standing = place !== first && !level.includes(place) ? "" : level.length ? "level with the best" : "best, and clear";
    const isSpeed = key === "fastest";
    const spread = isSpeed ? wording.interval(figure, "number") : context.moneyFormat.interval(figure);
    return {
      text: isSpeed ? wording.number(figure.value) : context.moneyFormat.amount(figure.value),
      lines: [spread, missed, label, standing].filter(Boolean), sort: isSpeed ? figure.value : context.moneyFormat.convert(figure.value),
    };
  };

  // The last line, about hosts, was measured and stays.
  const hourlyCell = (place, context, before) => {
    const price = context.derived.prices[context.facts.side.machines[place]];
    const hosts = before[before.length - 1];
    if (price.missing !== undefined) return { text: "not known", lines: [hosts], sort: null };
    const lines = [decision.basisLabel(price), [price.instance, price.region].filter(Boolean).join(", "), price.as_of, hosts].filter(Boolean);
    return { text: context.moneyFormat.perHour(price.usd_per_hour), lines, sort: context.moneyFormat.convert(price.usd_per_hour) };
  };

  // The line about hosts, the only one with a colon, was measured and stays.
  const speedCell = (index, context, before) => {
    const rate = context.facts.cells[index].samples_per_s;
    if (!is(rate)) return null;
    const each = context.derived.money[index].usd_per_1000_samples;
    const dollars = is(each) ? [`${context.moneyFormat.amount(each.value)} per 1,000`, context.moneyFormat.interval(each)] : [];
    const hosts = before.filter((line) => /^\d+ hosts?: /.test(line));
    return { text: `${wording.number(rate.value)}/s`, lines: [wording.interval(rate, "number"), ...hosts, ...dollars].filter(Boolean), sort: rate.value };
  };

  // [first, level] of every line; all lines are one family of comparisons, ranked once for each state of the page.
  const ranked = new WeakMap();
  const lineVerdicts = (key, context) => {
    const found = ranked.get(context.derived) || {};
    ranked.set(context.derived, found);
    found[key] = found[key] || rankAll(key, context.facts.side.lines.map((line) => line.squares),
      context.facts.side.lines.map((line) => line.squares.map((index) => is(index) ? read(key, index, context) : null)), context);
    return found[key];
  };

  const verdictCell = (place, context) => {
    const { names } = context.facts.side;
    const verdicts = [];
    const tied = [];
    for (const [key, predicate] of [["fastest", "fastest"], ["per_1000", "cheapest"]]) {
      const [first, level] = lineVerdicts(key, context)[place];
      if (first === null) continue;
      verdicts.push(`${predicate}: ${level.length ? "none clearly" : names[first]}`);
      if (level.length) tied.push(`${predicate}: ${wording.listed([first, ...level].map((one) => names[one]))} do not differ significantly`);
    }
    const [text, ...rest] = verdicts.length ? verdicts : ["measured on one machine alone"];
    return { text, lines: rest, sort: text, title: tied.join("; ") };
  };

  // {text, lines, sort, title} of a table cell whose figure is "side.WHAT"; null if it doesn't depend on assumptions.
  const tableCell = (what, place, context, before) => {
    if (what === "hour") return hourlyCell(place, context, before);
    if (what === "square") return speedCell(place, context, before);
    return what === "verdict" ? verdictCell(place, context) : bestCell(what, place, context);
  };

  return { tableCell };
})();
