"use strict";
// Verdict and tiles of the answer: in plain terms for a decision maker, in technical terms for an engineer.
const decision = (() => {
  const is = (value) => value !== null && value !== undefined;
  const valueOf = (estimate) => is(estimate) ? estimate.value : null;
  const count = (value) => Number.isInteger(value) ? wording.fixed(value, 0) : wording.number(value);
  const within = (text) => text ? " (" + text + ")" : "";

  // Formats amounts in the reader's currency.
  const moneyFormat = (values) => {
    const code = values["prices.currency.code"];
    const per_usd = values["prices.currency.per_usd"];
    const convert = (usd) => is(usd) ? formulas.converted({ usd, per_usd }) : null;
    return {
      code,
      convert,
      amount: (usd) => wording.amount(convert(usd), code),
      prose: (usd) => wording.prose(convert(usd), code),
      perHour: (usd) => wording.perHour(convert(usd), code),
      interval: (estimate) => is(estimate) ? wording.interval({ value: convert(estimate.value), low: convert(estimate.low), high: convert(estimate.high) }, "usd", code) : "",
      // Replaces the currency code `from` in text that Python wrote.
      recode: (text, from) => code === from ? text : text.replace(new RegExp(`\\b${from}\\b`, "g"), () => code),
    };
  };

  const basisOf = (price) => !is(price) || price.missing !== undefined ? null : price.basis === "assumed" ? "example" : price.basis;
  const basisLabel = (price) => {
    if (basisOf(price) === null) return "no price";
    return price.doubtful ? basisOf(price) + ", hardware disagrees" : basisOf(price);
  };

  const names = { tfidf: "counting words", features: "the model without training", hosted: "the hosted model", majority: "always the most common answer" };
  const points = (share) => `${(share * 100).toFixed(1)} point${(share * 100).toFixed(1) === "1.0" ? "" : "s"}`;
  const planTexts = { on_demand: "", spot: " on spot machines", committed: " in use of a commitment", own: " in use" };

  // The sentences of report/sections/plain_verdict.py under the reader's assumptions: the lead, then the others.
  const sentences = (facts, derived, chosen, state) => {
    const { way, verdict } = chosen;
    const money = moneyFormat(state.values);
    if (chosen.pick === null) return ["Nothing was measured here that could be chosen."];
    if (!chosen.num_ways) return [`The cheapest measured way: ${facts.cells[chosen.pick].plain}. How many texts it gets right was not measured.`];
    const next = nextSteps(facts, chosen);
    if (way === null || way.kind === "majority") {
      const lead = verdict.kind === "do not use yet" ? "Do not use any of these yet." : "Measure more before you decide.";
      return [lead, ...bestOf(facts, derived, chosen, money), ...reasons(facts, chosen, state), ...next];
    }
    const leads = { use: "Use ", "do not use yet": "Do not use it yet: ", "measure more": "Measure more before you decide. So far the choice is " };
    return [
      `${leads[verdict.kind]}${nameOf(facts, way)}${placeOf(facts, derived, way, money)}.`,
      ...costOf(facts, derived, chosen, money), quality(facts, way), ...lossOf(facts, chosen, state), ...reasons(facts, chosen, state), ...next,
    ];
  };

  const nameOf = (facts, way) => way.kind === "fine_tune" ? facts.cells[way.index].plain : names[way.kind];

  const priceText = (price, money, num_nodes = 1) => {
    const each = num_nodes > 1 ? ` for each of ${num_nodes} machines` : "";
    const hourly = `${money.perHour(price.usd_per_hour)} an hour${each}${planTexts[price.plan]}`;
    if (price.basis === "given") return `${hourly}, your price`;
    if (price.plan === "own") return hourly;
    const name = price.basis === "assumed" && price.instance ? `, ${price.instance}` : "";
    const region = price.region ? ` in ${price.region}` : "";
    return `${hourly}${name}${region}, ${price.as_of ? "price of " + wording.date(price.as_of) : "price without a date"}`;
  };

  const placeOf = (facts, derived, way, money) => {
    if (way.index === null) return "";
    const { machine, num_nodes } = facts.cells[way.index];
    const price = derived.prices[machine];
    const isKnown = price.missing === undefined && price.basis !== "assumed";
    return ` on ${facts.machines[machine].label}${isKnown ? within(priceText(price, money, num_nodes)) : ""}`;
  };

  const costOf = (facts, derived, chosen, money) => {
    const { way } = chosen;
    const { months, num_trainings, label_usd } = derived.use;
    const overMonths = (usd) => `It costs about ${money.prose(usd)} over ${count(months)} months`;
    if (way.index === null) return [`${overMonths(way.usd)}.`];
    const figures = derived.money[way.index];
    const { machine, num_nodes } = facts.cells[way.index];
    const price = derived.prices[machine];
    if (!is(way.usd)) return [`A training takes ${wording.seconds(way.seconds)}. The price of this machine is not known (${price.missing || "no price was found"}): enter yours.`];
    const example = price.basis === "assumed" ? [`The price of this machine is not known: enter yours. ${chosen.inDollars ? "" : "Example prices rank no machines, so the fastest was chosen. "}An example price stands in (${priceText(price, money, num_nodes)}).`] : [];
    const paid = is(months) ? overMonths(way.usd)
      : num_trainings !== 1 || label_usd ? `It costs about ${money.prose(way.usd)} in all` : `One training costs about ${money.prose(way.usd)} on the bill`;
    const part = is(figures.usd_per_run) && figures.usd_per_run.value && !is(months) ? `, ${money.prose(figures.usd_per_run.value)} of it for the run and the rest for starting a machine` : "";
    return [...example, `${paid}${part}; a run takes ${wording.seconds(way.seconds)}.`];
  };

  const quality = (facts, way) => {
    const spread = wording.interval(way.score, "percent");
    const evidence = spread ? [`95% confidence interval ${spread}`] : [];
    const cell = way.index === null ? null : facts.cells[way.index];
    if (cell !== null && is(cell.num_test)) evidence.push(`${wording.plural(cell.num_test, "test text")}, ${wording.plural(cell.num_ok, "run")}`);
    const text = `It labels ${wording.percent(way.score.value)} of texts right${within(evidence.join("; "))}`;
    const gains = cell === null ? [] : ["features", "tfidf"].filter((kind) => is(cell.gains[kind]))
      .map((kind) => `${points(Math.abs(cell.gains[kind]))} ${cell.gains[kind] >= 0 ? "more" : "fewer"} than ${names[kind]}`);
    return gains.length ? `${text}: ${wording.listed(gains)}.` : `${text}.`;
  };

  const lossOf = (facts, { way, num_ways }, state) => is(state.accuracy) || way.loss[1] <= 0 ? []
    : [`Another of the ${num_ways} measured ways may label up to ${points(Math.min(way.loss[1], 1 - way.score.value))} more right (95% confidence; expected: ${points(way.loss[0])}).`];

  const bestOf = (facts, derived, chosen, money) => {
    const cell = facts.cells[chosen.pick];
    if (!is(cell.accuracy)) return [];
    const price = derived.prices[cell.machine];
    const billed = derived.money[chosen.pick].usd_billed;
    return [
      `The best measured model, ${cell.plain} on ${facts.machines[cell.machine].label}, labels ${wording.percent(cell.accuracy.value)} of texts right.`,
      is(billed) ? `One training costs about ${money.prose(billed.value)} on the bill (${price.basis === "assumed" ? "example price: " : ""}${priceText(price, money, cell.num_nodes)}).`
        : "The price of this machine is not known: enter yours.",
    ];
  };

  const reasons = (facts, chosen, state) => {
    const need = wording.percent(state.accuracy);
    const best = is(chosen.best) ? facts.cells[chosen.best].accuracy.value : null;
    const texts = {
      no_accuracy: "How many texts it gets right was not measured.",
      majority_not_beaten: `Nothing is shown to beat always giving the most common answer, which is right for ${wording.percent(facts.majority)}.`,
      loses_money: "By the values that you gave, it loses money.",
      target_missed: `Nothing gets ${need} right: the best gets ${wording.percent(best)}.`,
      target_uncertain: `Whether it gets ${need} right on other texts is not certain.`,
      loss_not_excluded: `A loss of more than ${points(2 * facts.tolerance)} is too much to decide on.`,
      baseline_missing: `Not measured: ${wording.listed(["tfidf", "features"].filter((name) => facts.missing.includes(name)).map((name) => names[name]))}, which may do as well for less.`,
      alarm: is(chosen.way) && is(chosen.way.index) ? facts.cells[chosen.way.index].alarms.join(" ") : "",
    };
    return chosen.verdict.reasons.map((reason) => texts[reason]);
  };

  // What to measure next depends on the choice and on the reasons: Python wrote it for its own choice.
  const nextSteps = (facts, { way, verdict }) => {
    if (verdict.kind === "use") return ["Next: train it. The choice needs no more measurements."];
    const isSame = facts.next.index === (way === null ? null : way.index) && facts.next.reasons.join() === verdict.reasons.join();
    if (isSame) return facts.next.steps;
    if (verdict.reasons.includes("loses_money")) return ["Next: check the values that you gave. No measurement would change this."];
    if (verdict.reasons.includes("target_missed")) return ["Next: measure another model, more labelled texts, or more passes over them."];
    return ["Next: train it more often, each time from another seed, and test on more texts."];
  };

  // What the model brings: only if the reader or the report's files state every value that it needs.
  const valueCard = (facts, derived, chosen, state) => {
    const worth = chosen.pick === null || !chosen.reached ? null : derived.worth[chosen.pick];
    if (!is(worth) || !ranking.statesValue(facts, state)) return null;
    const money = moneyFormat(state.values);
    const months = count(state.values["value.horizon_months"]);
    return {
      text: `It brings about ${money.prose(worth.benefit_usd_per_month.value)} a month, and ${money.prose(worth.net_present_value_usd.value)} in ${months} months in today's money, what is paid up front included.`,
      fields: facts.inputs.filter(({ name }) => name.startsWith("value.") && is(state.values[name])).map((input) => ({ title: input.title, value: panel.shown(input, state.values[input.name]), whose: ranking.isStated(facts, state, input.name) ? "yours" : "example" })),
    };
  };

  // The tiles of the engineer's view, as report/sections/tiles.py.
  const tiles = (facts, derived, chosen, state) => {
    const cell = facts.cells[chosen.pick];
    const [figures, price, rate] = [derived.money[chosen.pick], derived.prices[cell.machine], cell.samples_per_s];
    const money = moneyFormat(state.values);
    const each = is(figures.usd_per_1000_samples) ? `; ${money.amount(figures.usd_per_1000_samples.value)} per 1,000 samples` : "";
    const against = is(facts.majority) ? [`majority ${wording.percent(facts.majority)}`] : [];
    if (is(facts.tfidf)) against.push(`TF-IDF ${wording.percent(facts.cells[facts.tfidf].accuracy.value)}`);
    if (is(facts.features)) against.push(`frozen encoder ${wording.percent(facts.cells[facts.features].accuracy.value)}`);
    const spread = wording.interval(cell.accuracy, "percent");
    const known = is(figures.usd_billed);
    return [
      { label: "A training, on the bill", value: known ? money.amount(figures.usd_billed.value) : "not known",
        note: known ? `${money.amount(figures.usd_per_run.value)} for the measured ${wording.seconds(figures.run_s.value)}${each}` : price.missing || "no price was found", basis: basisOf(price) },
      { label: "Test accuracy", value: wording.percent(valueOf(cell.accuracy)), note: [...(spread ? [spread] : []), ...against].join("; "), basis: null },
      { label: "Training speed", value: rate ? wording.number(rate.value) + " samples/s" : "not measured",
        note: [wording.interval(rate, "number"), "peak memory " + wording.memory(cell.peak_memory_bytes)].filter(Boolean).join("; "), basis: null },
    ];
  };

  return { points, moneyFormat, basisOf, basisLabel, sentences, valueCard, tiles, valueOf };
})();
