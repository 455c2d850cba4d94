"use strict";
// Which cell to choose under the reader's assumptions, as report/choice.py does it, and with an accuracy that is needed.
const ranking = (() => {
  const is = (value) => value !== null && value !== undefined;
  const bound = (estimate, side) => is(estimate[side]) ? estimate[side] : estimate.value;

  // Whether two figures can't be ranked, as choice.overlap.
  const overlap = (one, other) => {
    if (!is(one) || !is(other)) return false;
    return Math.max(bound(one, "low"), bound(other, "low")) <= Math.min(bound(one, "high"), bound(other, "high"));
  };

  // The first of the least; null of none.
  const least = (indices, by) => {
    let found = null;
    for (const index of indices) if (is(by(index)) && (found === null || by(index) < by(found))) found = index;
    return found;
  };

  // {pick, best, rivals, level, compared, reached}: indices of cells. `rivals` meet the accuracy that is needed; without
  // one they can't be told from the best. `reached` is false where none meets it.
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
    // Dollars and seconds don't rank against each other: a cell without a price yields to those that have one.
    const priced = rivals.filter((index) => is(dollars(index)));
    const found = least(priced.length ? priced : rivals, rank);
    const pick = found === null && !is(state.accuracy) ? best : found;
    const level = pick === null ? [] : rivals.filter((index) => index !== pick && sameCost(index, pick));
    return { pick, best, rivals, level, compared, reached: best === null || !is(state.accuracy) || rivals.length > 0 };
  };

  // Places of the points [cost, accuracy] that no other beats in both, by cost, as choice.pareto_front.
  const front = (points) => {
    const order = points.map((_, index) => index).sort((a, b) => points[a][0] - points[b][0] || points[b][1] - points[a][1]);
    const found = [];
    for (const index of order) {
      if (!found.length || points[index][1] > points[found[found.length - 1]][1]) found.push(index);
    }
    return found;
  };

  return { choose, overlap, bound, front };
})();
