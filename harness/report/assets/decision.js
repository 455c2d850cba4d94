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

  const names = { tfidf: "counting words", features: "the frozen encoder's features with logistic regression", hosted: "the hosted model", majority: "always the commonest answer" };
  const points = (share) => `${(share * 100).toFixed(1)} point${(share * 100).toFixed(1) === "1.0" ? "" : "s"}`;

  // {lead, more}: the verdict under the reader's assumptions, and why.
  const sentence = (facts, derived, chosen, state) => {
    const { way, verdict } = chosen;
    const need = is(state.accuracy) ? wording.percent(state.accuracy) : null;
    const num = wording.plural(chosen.num_ways, "measured way");
    if (chosen.pick === null) return { lead: "Nothing was measured here that could be chosen.", more: [] };
    const best = is(chosen.best) ? facts.cells[chosen.best].accuracy : null;
    if (!chosen.reached) {
      return {
        lead: `None of the ${num} gets ${need} of the texts right: the best gets ${wording.percent(best.value)}${within(wording.interval(best, "percent"))}.`,
        more: ["Ask for less, or measure more: a larger model, more training rows, more passes over them."],
      };
    }
    const isOther = is(way) && way.index === null;
    const cell = facts.cells[chosen.pick];
    const what = isOther ? names[way.kind] : cell.classifier ? names[cell.classifier] : cell.words;
    const where = !isOther && places(facts) ? " on " + facts.machines[cell.machine].label : "";
    const paid = isOther ? "" : " " + costOf(facts, derived, chosen, state);
    if (!is(cell.accuracy)) {
      return { lead: `The cheapest measured way${paid}; how many texts it gets right was not measured.`, more: [] };
    }
    const score = isOther ? way.score : cell.accuracy;
    const gets = `It gets ${wording.percent(score.value)} of the texts right${within(wording.interval(score, "percent"))}.`;
    const leads = { use: "Use", "do not use yet": "Do not use it yet:", "measure more": "Measure more before you decide. So far the choice is" };
    return { lead: `${leads[verdict.kind]} ${what}${where}.${paid}`, more: [gets, ...reasons(facts, chosen, state, need, num)] };
  };

  const costOf = (facts, derived, chosen, state) => {
    const money = moneyFormat(state.values);
    const figures = derived.money[chosen.pick];
    if (!is(figures.usd_to_have)) {
      const price = derived.prices[facts.cells[chosen.pick].machine];
      return `A run takes ${wording.seconds(valueOf(figures.run_s))}; what that costs is not known: ${price.missing || "no price was found"}.`;
    }
    const { months, num_trainings, num_texts } = derived.use;
    const what = is(months) ? `It costs ${money.amount(figures.usd_to_have.value)} over ${count(months)} months`
      : num_trainings === 1 && !num_texts ? `A training costs ${money.amount(figures.usd_to_have.value)} on the bill` : `It costs ${money.amount(figures.usd_to_have.value)} in all`;
    return `${what} and takes ${wording.seconds(valueOf(figures.run_s))} a run.`;
  };

  const reasons = (facts, chosen, state, need, num) => {
    const texts = {
      majority_not_beaten: `Nothing is shown to beat always giving the commonest answer (${wording.percent(facts.majority)}).`,
      loses_money: "By your values it loses money.",
      alarm: "Its training has a warning: see the engineer's view.",
      baseline_missing: `Not measured: ${facts.missing.map((name) => names[name]).join(" and ")}, which may do as well for less.`,
      target_uncertain: `On other texts it may get fewer than ${need} right: ask for more to be sure.`,
      loss_not_excluded: `A loss of more than ${points(2 * facts.tolerance)} against the best is not excluded.`,
    };
    const said = chosen.verdict.reasons.map((reason) => texts[reason]).filter(Boolean);
    if (need === null && is(chosen.way) && chosen.num_ways > 1) {
      said.push(`It is the cheapest of the ${num} that are as good as the best to within ${points(facts.tolerance)}, as far as can be told.`);
    } else if (need !== null && is(chosen.way)) said.push(`It is the cheapest of ${num} to get at least ${need} right.`);
    return said;
  };

  // The three tiles of the decision maker's view.
  const plainTiles = (facts, derived, chosen, state) => {
    const cell = facts.cells[chosen.pick];
    const [figures, worth, price] = [derived.money[chosen.pick], derived.worth[chosen.pick], derived.prices[cell.machine]];
    const money = moneyFormat(state.values);
    const retraining = (name) => state.values["prices.retraining." + name];
    const runs = retraining("per_month") * retraining("trials_per_kept");
    const isBilled = is(figures.usd_billed) && price.plan !== "own";
    const measured = is(figures.usd_per_run) ? `${money.amount(figures.usd_per_run.value)} for the measured seconds; ` : "";
    const monthly = is(figures.usd_per_month) ? `${money.amount(figures.usd_per_month.value)} a month at ${count(runs)} ${runs === 1 ? "run" : "runs"}` : "";
    const cost = isBilled ? figures.usd_billed : figures.usd_per_run;
    const against = [];
    if (is(facts.majority)) against.push(`always the commonest answer ${wording.percent(facts.majority)}`);
    if (is(facts.tfidf)) against.push(`counting words ${wording.percent(facts.cells[facts.tfidf].accuracy.value)}`);
    if (is(facts.features)) against.push(`the model without training ${wording.percent(facts.cells[facts.features].accuracy.value)}`);
    const spread = wording.interval(cell.accuracy, "percent");
    const tiles = [
      { label: isBilled ? "A training, on the bill" : "Cost of a training run", value: is(cost) ? money.amount(cost.value) : "not known",
        note: (isBilled ? measured : "") + monthly || price.missing || "no price was found", basis: basisOf(price) },
      { label: "Texts it gets right", value: wording.percent(valueOf(cell.accuracy)), note: [spread, ...against].filter(Boolean).join("; "), basis: null },
    ];
    // What it brings follows from values that nobody but the reader knows: examples give no figure here.
    const isExample = !facts.given.some((name) => name.startsWith("value.")) && !address.changes(facts, state).some((name) => name.startsWith("value."));
    if (isExample) return tiles;
    const horizon = count(state.values["value.horizon_months"]);
    return [...tiles, { label: "What it brings a month", value: worth ? money.amount(worth.benefit_usd_per_month.value) : "not known",
      note: worth ? `${money.amount(worth.net_present_value_usd.value)} over ${horizon} months, less what is paid up front` : "it takes a price and an accuracy",
      basis: worth ? "your values" : null }];
  };

  // The tiles of the engineer's view, as report/sections/tiles.py.
  const tiles = (facts, derived, chosen, state) => {
    const cell = facts.cells[chosen.pick];
    const [figures, price, rate] = [derived.money[chosen.pick], derived.prices[cell.machine], cell.samples_per_s];
    const money = moneyFormat(state.values);
    const each = is(figures.usd_per_1000_samples) ? `${money.amount(figures.usd_per_1000_samples.value)} per 1,000 samples; ` : "";
    const against = is(facts.majority) ? [`majority ${wording.percent(facts.majority)}`] : [];
    if (is(facts.tfidf)) against.push(`TF-IDF ${wording.percent(facts.cells[facts.tfidf].accuracy.value)}`);
    if (is(facts.features)) against.push(`frozen encoder ${wording.percent(facts.cells[facts.features].accuracy.value)}`);
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

  return { points, moneyFormat, basisOf, basisLabel, sentence, plainTiles, tiles, valueOf };
})();
