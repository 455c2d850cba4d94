"use strict";
// Chooses a cell under the reader's assumptions and required accuracy, as decision/choice.py.
const ranking = (() => {
  const is = (value) => value !== null && value !== undefined;
  const bound = (estimate, side) => is(estimate[side]) ? estimate[side] : estimate.value;

  // Whether the intervals of two figures overlap, as choice.overlap.
  const overlap = (one, other) => {
    if (!is(one) || !is(other)) return false;
    return Math.max(bound(one, "low"), bound(other, "low")) <= Math.min(bound(one, "high"), bound(other, "high"));
  };

  // Index with the lowest value, the first of several; null if none has a value.
  const least = (indices, by) => {
    let lowest = null;
    for (const index of indices) if (is(by(index)) && (lowest === null || by(index) < by(lowest))) lowest = index;
    return lowest;
  };

  // {pick, best, rivals, level, compared, reached}: indices of cells. `rivals` reach the required accuracy; if none is required,
  // their intervals overlap the best. `reached` is false if no cell reaches it. `level` have a cost that overlaps that of `pick`.
  const choose = (facts, derived, state) => {
    const accuracyOf = (index) => facts.cells[index].accuracy;
    const money = (index) => derived.money[index];
    const valueOf = (estimate) => is(estimate) ? estimate.value : null;
    const dollars = (index) => valueOf(is(accuracyOf(index)) ? money(index).usd_per_run : money(index).usd_per_1000_samples);
    const rank = (index) => {
      if (is(dollars(index))) return dollars(index);
      if (is(accuracyOf(index))) return valueOf(money(index).run_s);
      const rate = facts.cells[index].samples_per_s;
      return is(rate) && rate.value > 0 ? 1 / rate.value : null;
    };
    const sameCost = (one, other) => {
      const [a, b] = [money(one), money(other)];
      if (is(a.usd_per_run) && is(accuracyOf(one))) return overlap(a.usd_per_run, b.usd_per_run);
      if (is(a.usd_per_1000_samples)) return overlap(a.usd_per_1000_samples, b.usd_per_1000_samples);
      return overlap(facts.cells[one].samples_per_s, facts.cells[other].samples_per_s);
    };

    const compared = [];
    facts.cells.forEach((cell, index) => {
      if (cell.compared && (!is(state.machine) || cell.machine === state.machine)) compared.push(index);
    });
    const judged = compared.filter((index) => is(accuracyOf(index)));
    const best = least(judged, (index) => -accuracyOf(index).value);
    let rivals = compared.filter((index) => is(rank(index)));
    if (best !== null && is(state.accuracy)) rivals = judged.filter((index) => accuracyOf(index).value >= state.accuracy);
    else if (best !== null) rivals = judged.filter((index) => overlap(accuracyOf(index), accuracyOf(best)));
    // Dollars and seconds can't be compared: cells without a price are considered only if no cell has one.
    const priced = rivals.filter((index) => is(dollars(index)));
    const cheapest = least(priced.length ? priced : rivals, rank);
    const pick = cheapest === null && !is(state.accuracy) ? best : cheapest;
    const level = pick === null ? [] : rivals.filter((index) => index !== pick && sameCost(index, pick));
    return { pick, best, rivals, level, compared, reached: best === null || !is(state.accuracy) || rivals.length > 0 };
  };

  // Indices of the Pareto-optimal points [cost, accuracy], by cost, as choice.pareto_front.
  const front = (points) => {
    const order = points.map((_, index) => index).sort((a, b) => points[a][0] - points[b][0] || points[b][1] - points[a][1]);
    const optimal = [];
    for (const index of order) {
      if (!optimal.length || points[index][1] > points[optimal[optimal.length - 1]][1]) optimal.push(index);
    }
    return optimal;
  };

  return { choose, overlap, bound, front };
})();
