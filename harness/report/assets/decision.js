"use strict";
// Sentences and tiles of the answer: in plain terms for a decision maker, in technical terms for an engineer.
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
      perHour: (usd) => wording.perHour(convert(usd), code),
      interval: (estimate) => is(estimate) ? wording.interval({ value: convert(estimate.value), low: convert(estimate.low), high: convert(estimate.high) }, "usd", code) : "",
      // Replaces the currency code `from` in text that Python wrote.
      recode: (text, from) => code === from ? text : text.replace(new RegExp(`\\b${from}\\b`, "g"), () => code),
    };
  };

  const basisOf = (price) => is(price) && price.missing === undefined ? price.basis : null;
  const basisLabel = (price) => {
    if (basisOf(price) === null) return "no price";
    return price.doubtful ? price.basis + ", hardware disagrees" : price.basis;
  };

  const places = (facts) => facts.machines.length > 1;

  // {lead, more}: sentences about the cheapest cell, or that there is none.
  const sentence = (facts, derived, chosen, state) => {
    const money = moneyFormat(state.values);
    const need = is(state.accuracy) ? wording.percent(state.accuracy) : null;
    const num = wording.plural(chosen.compared.length, "measured way");
    if (!chosen.reached) {
      const best = facts.cells[chosen.best].accuracy;
      return {
        lead: `None of the ${num} gets ${need} of the texts right: the best gets ${wording.percent(best.value)}${within(wording.interval(best, "percent"))}.`,
        more: ["Ask for less, or measure more: a larger model, more training rows, more passes over them."],
      };
    }
    if (chosen.pick === null) return { lead: "Nothing was measured here that could be chosen.", more: [] };
    const cell = facts.cells[chosen.pick];
    const figures = derived.money[chosen.pick];
    const price = derived.prices[cell.machine];
    const where = places(facts) ? " on " + facts.machines[cell.machine].label : "";
    const paid = is(figures.usd_per_run) ? `costs ${money.amount(figures.usd_per_run.value)} a run and takes ${wording.seconds(figures.run_s.value)}${where}`
      : `takes ${wording.seconds(valueOf(figures.run_s))} a run${where}`;
    const more = [];
    if (!is(figures.usd_per_run)) more.push(`What that costs is not known: ${price.missing || "no price was found"}.`);
    if (!is(cell.accuracy)) {
      return { lead: `The cheapest measured way ${paid}; how many texts it gets right was not measured.`, more };
    }
    const gets = `${wording.percent(cell.accuracy.value)} of the texts right${within(wording.interval(cell.accuracy, "percent"))}`;
    const lead = need !== null ? `The cheapest of ${num} to get at least ${need} of the texts right ${paid}. It got ${gets}.`
      : `Of ${num}, the cheapest that can't be told from the best ${paid}. It got ${gets}.`;
    if (need !== null && is(cell.accuracy.low) && cell.accuracy.low < state.accuracy) {
      more.push(`On other texts it may get as few as ${wording.percent(cell.accuracy.low)}: ask for more to be sure of ${need}.`);
    }
    if (chosen.level.length) {
      const others = chosen.level.length === 1 ? "One other way costs" : `${chosen.level.length} other ways cost`;
      more.push(`${others} the same, as far as can be told.`);
    }
    return { lead, more };
  };

  // The three tiles of the decision maker's view.
  const plainTiles = (facts, derived, chosen, state) => {
    const cell = facts.cells[chosen.pick];
    const [figures, worth, price] = [derived.money[chosen.pick], derived.worth[chosen.pick], derived.prices[cell.machine]];
    const money = moneyFormat(state.values);
    const retraining = (name) => state.values["prices.retraining." + name];
    const runs = retraining("per_month") * retraining("trials_per_kept");
    const billed = is(figures.usd_billed) && price.plan !== "own" ? `${money.amount(figures.usd_billed.value)} on the bill, with starting the machine; ` : "";
    const monthly = is(figures.usd_per_month) ? `${money.amount(figures.usd_per_month.value)} a month at ${count(runs)} ${runs === 1 ? "run" : "runs"}` : "";
    const against = [];
    if (is(facts.majority)) against.push(`always the commonest answer ${wording.percent(facts.majority)}`);
    if (is(facts.tfidf)) against.push(`counting words ${wording.percent(facts.cells[facts.tfidf].accuracy.value)}`);
    const spread = wording.interval(cell.accuracy, "percent");
    const horizon = count(state.values["value.horizon_months"]);
    const isExample = !facts.given.some((name) => name.startsWith("value.")) && !address.changes(facts, state).some((name) => name.startsWith("value."));
    return [
      { label: "Cost of a training run", value: is(figures.usd_per_run) ? money.amount(figures.usd_per_run.value) : "not known",
        note: billed + monthly || price.missing || "no price was found", basis: basisOf(price) },
      { label: "Texts it gets right", value: wording.percent(valueOf(cell.accuracy)), note: [spread, ...against].filter(Boolean).join("; "), basis: null },
      { label: "What it brings a month", value: worth ? money.amount(worth.benefit_usd_per_month.value) : "not known",
        note: worth ? `${money.amount(worth.net_present_value_usd.value)} over ${horizon} months, less what is paid up front` : "it takes a price and an accuracy",
        basis: worth ? (isExample ? "example values" : "your values") : null },
    ];
  };

  // The tiles of the engineer's view, as report/sections/tiles.py.
  const tiles = (facts, derived, chosen, state) => {
    const cell = facts.cells[chosen.pick];
    const [figures, price, rate] = [derived.money[chosen.pick], derived.prices[cell.machine], cell.samples_per_s];
    const money = moneyFormat(state.values);
    const each = is(figures.usd_per_1000_samples) ? `${money.amount(figures.usd_per_1000_samples.value)} per 1,000 samples; ` : "";
    const against = is(facts.majority) ? [`majority ${wording.percent(facts.majority)}`] : [];
    if (is(facts.tfidf)) against.push(`TF-IDF ${wording.percent(facts.cells[facts.tfidf].accuracy.value)}`);
    const spread = wording.interval(cell.accuracy, "percent");
    const known = is(figures.usd_per_run);
    return [
      { label: "Cost of a run", value: known ? money.amount(figures.usd_per_run.value) : "not known",
        note: known ? `${each}${wording.seconds(figures.run_s.value)} in all` : price.missing || "no price was found", basis: basisOf(price) },
      { label: "Test accuracy", value: wording.percent(valueOf(cell.accuracy)), note: [...(spread ? [spread] : []), ...against].join("; "), basis: null },
      { label: "Training speed", value: rate ? wording.number(rate.value) + " samples/s" : "not measured",
        note: [wording.interval(rate, "number"), "peak memory " + wording.memory(cell.peak_memory_bytes)].filter(Boolean).join("; "), basis: null },
    ];
  };

  return { moneyFormat, basisOf, basisLabel, sentence, plainTiles, tiles, valueOf };
})();
