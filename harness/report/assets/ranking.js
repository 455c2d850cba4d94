"use strict";
// Chooses among the measured ways under the reader's prices and required accuracy, as decision/choice.py: Python estimates what each
// way loses (it depends on no price), this script takes the cheapest of those that are good enough.
const ranking = (() => {
  const is = (value) => value !== null && value !== undefined;
  const bound = (estimate, side) => is(estimate[side]) ? estimate[side] : estimate.value;

  // Index with the lowest value, the first of several; null if none has a value.
  const least = (indices, by) => {
    let lowest = null;
    for (const index of indices) if (is(by(index)) && (lowest === null || by(index) < by(lowest))) lowest = index;
    return lowest;
  };

  const half = 0.5; // of the tolerance, as expected_loss.admitted
  const seriousLoss = 2; // tolerances, as SERIOUS_LOSS of decision/verdict.py

  // A way for each cell with a loss, one for a majority class without a cell, and one for a stated hosted model.
  const waysOf = (facts, derived, state) => {
    const anywhere = !is(state.machine);
    const ways = [];
    facts.cells.forEach((cell, index) => {
      const loss = anywhere ? cell.loss : cell.here;
      if (!is(loss) || (!anywhere && cell.machine !== state.machine)) return;
      const money = derived.money[index];
      const kind = cell.classifier || "fine_tune";
      const seconds = kind === "majority" ? 0 : is(money.run_s) ? money.run_s.value : null;
      ways.push({ kind, index, score: cell.accuracy, loss, usd: kind === "majority" ? 0 : is(money.usd_to_have) ? money.usd_to_have.value : null, seconds });
    });
    if (ways.length && is(facts.majority_loss)) {
      ways.push({ kind: "majority", index: null, score: facts.majority_score, loss: facts.majority_loss[anywhere ? 0 : state.machine + 1], usd: 0, seconds: 0 });
    }
    const serving = (name) => state.values["prices.serving." + name];
    if (ways.length && derived.use.num_texts && is(serving("hosted_accuracy")) && is(serving("hosted_usd_per_million"))) {
      const stated = serving("hosted_accuracy");
      const highest = Math.max(...ways.map((way) => way.score.value));
      const above = Math.max(0, stated - highest);
      for (const way of ways) way.loss = way.loss.map((loss) => loss + above);
      const below = Math.max(0, highest - stated);
      ways.push({ kind: "hosted", index: null, score: { value: stated, low: null, high: null }, loss: [below, below],
        usd: derived.use.num_texts * serving("hosted_usd_per_million") / 1e6, seconds: null });
    }
    return ways;
  };

  const admit = (facts, ways, target) => {
    if (is(target)) {
      const may = ways.filter((way) => way.score.value >= target);
      const sure = may.filter((way) => !is(way.score.low) || way.score.low >= target);
      return sure.length ? sure : may;
    }
    const within = ways.filter((way) => way.loss[0] <= facts.tolerance);
    if (within.length || !ways.length) return within;
    const lowest = Math.min(...ways.map((way) => way.loss[0]));
    return ways.filter((way) => way.loss[0] <= lowest + facts.tolerance * half);
  };

  // By dollars if any model has a price, else by seconds; of equal costs, the higher score first.
  const cheapestFirst = (ways, inDollars) => {
    const cost = (way) => inDollars ? way.usd : way.seconds;
    return ways.filter((way) => is(cost(way))).sort((a, b) => cost(a) - cost(b) || b.score.value - a.score.value);
  };

  // Whether the reader or the report's files state every value that a benefit needs, as states_value of decision/worth.py.
  const isStated = (facts, state, name) => facts.given.includes(name) || state.values[name] !== facts.values[name];
  const statesValue = (facts, state) => {
    const all = (...names) => names.every((name) => isStated(facts, state, "value." + name));
    return all("items_per_month", "right_usd") && (all("wrong_usd") || all("false_positive_usd", "false_negative_usd"));
  };

  // {kind, reasons}, as decision/verdict.py.
  const judge = (facts, derived, state, { ways, way, best }) => {
    if (!ways.length || best === null) return { kind: "measure more", reasons: ["no_accuracy"] };
    const shown = way !== null && way.kind !== "majority" ? way : best;
    const beats = shown.kind === "hosted" || (shown.index !== null && shown.kind !== "majority" && facts.cells[shown.index].beats);
    if (!beats || (way !== null && way.kind === "majority")) return { kind: "do not use yet", reasons: ["majority_not_beaten"] };
    if (way === null) {
      const isMissed = !is(best.score.high) || best.score.high < state.accuracy;
      return isMissed ? { kind: "do not use yet", reasons: ["target_missed"] } : { kind: "measure more", reasons: ["target_uncertain"] };
    }
    const isGiven = statesValue(facts, state);
    const worth = way.index === null ? null : derived.worth[way.index];
    if (isGiven && is(worth) && worth.net_present_value_usd.value < 0) return { kind: "do not use yet", reasons: ["loses_money"] };
    const reasons = [];
    if (way.index !== null && facts.cells[way.index].alarm) reasons.push("alarm");
    if (facts.missing.length) reasons.push("baseline_missing");
    if (is(state.accuracy)) {
      if (is(way.score.low) && way.score.low < state.accuracy) reasons.push("target_uncertain");
    } else if (way.loss[1] > seriousLoss * facts.tolerance) reasons.push("loss_not_excluded");
    return { kind: reasons.length ? "measure more" : "use", reasons };
  };

  // An example price stands in for a machine whose price is not known: it ranks no machines.
  const isExample = (price) => price.missing === undefined && price.basis === "assumed" && price.plan !== "own";
  const comparableInDollars = (facts, derived, indices) => {
    const machines = new Set(indices.map((index) => facts.cells[index].machine));
    return machines.size < 2 || ![...machines].some((machine) => isExample(derived.prices[machine]));
  };

  // {way, pick, best, rivals, level, compared, reached, verdict}. `pick`, `best`, `rivals` (the ways that are good enough), `level`
  // (of them, those whose cost does not differ significantly from that of `way`) and `compared` (fine-tuned models) are indices of cells.
  const choose = (facts, derived, state) => {
    const ways = waysOf(facts, derived, state);
    const inDollars = ways.some((way) => is(way.usd) && way.index !== null && way.kind !== "majority") && comparableInDollars(facts, derived, ways.map((way) => way.index).filter(is));
    const choices = cheapestFirst(admit(facts, ways, state.accuracy), inDollars);
    const way = choices.length ? choices[0] : null;
    const best = ways.filter((each) => each.kind !== "hosted").reduce((top, each) => top === null || each.score.value > top.score.value ? each : top, null);
    const compared = [];
    facts.cells.forEach((cell, index) => {
      if (cell.compared && (!is(state.machine) || cell.machine === state.machine)) compared.push(index);
    });
    const models = ways.filter((each) => each.kind === "fine_tune");
    const model = models.reduce((top, each) => top === null || each.score.value > top.score.value ? each : top, null);
    const shown = [way, best, model].find((each) => each !== null && each.index !== null);
    const pick = ways.length ? (shown ? shown.index : null) : withoutScores(facts, derived, compared);
    const rivals = choices.map((each) => each.index).filter(is);
    const costs = choices.map((each) => each.index === null || each.kind === "majority" ? { value: each.usd, low: null, high: null } : derived.money[each.index].usd_to_have);
    const [[, levelPlaces]] = comparing.rankAll([costs], false);
    const level = !inDollars ? [] : levelPlaces.map((place) => choices[place].index).filter(is);
    return { way, pick, best: best === null ? null : best.index, rivals, level, compared, reached: !is(state.accuracy) || !ways.length || way !== null,
      num_ways: ways.length, inDollars, verdict: judge(facts, derived, state, { ways, way, best }) };
  };

  // Without accuracies: the cheapest per sample, or the fastest if nothing has a price.
  const withoutScores = (facts, derived, compared) => {
    const priced = !comparableInDollars(facts, derived, compared) ? [] : compared.filter((index) => is(derived.money[index].usd_per_1000_samples));
    if (priced.length) return least(priced, (index) => derived.money[index].usd_per_1000_samples.value);
    return least(compared.filter((index) => is(facts.cells[index].samples_per_s)), (index) => -facts.cells[index].samples_per_s.value);
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

  return { choose, bound, front, isExample, comparableInDollars, isStated, statesValue };
})();
