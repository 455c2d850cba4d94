"use strict";
// Recomputes prices, costs and worth under the reader's assumptions, as harness/pricing and decision/worth.py do. No DOM here.
// `state.values` holds every assumption by its dotted name, `state.choices` the chosen price of each machine,
// and `state.hourly` the hourly prices in USD that the reader typed in.
const recompute = (() => {
  const is = (value) => value !== null && value !== undefined;
  const ends = ["low", "high"];

  // Apply a monotonic function to an estimate, as map_estimate in analysis/estimate.py.
  const map = (estimate, value) => {
    if (!is(estimate)) return null;
    const middle = value(estimate.value);
    if (!is(middle)) return null;
    let [low, high] = ends.map((end) => is(estimate[end]) ? value(estimate[end]) : null);
    if ((is(low) && low > middle) || (is(high) && high < middle)) [low, high] = [high, low];
    return { ...estimate, value: middle, low, high };
  };
  const exact = (value) => is(value) ? { value, low: null, high: null } : null;

  const rateOf = (facts, choice, plan) => {
    const fitting = facts.rates.filter((rate) =>
      rate.plan === plan && rate.instance === choice.instance && (!is(rate.region) || rate.region === choice.region));
    return fitting.find((rate) => is(rate.region)) || fitting[0] || null;
  };

  const onDemand = (facts, choice, values) => {
    const rate = rateOf(facts, choice, "on_demand");
    if (rate) return rate.usd_per_hour;
    if (!is(choice.listed)) return null; // neither the price table nor the reader's own rates have it
    return formulas.discounted({ usd_per_hour: choice.listed, discount_percent: values["prices.discount_percent"] });
  };

  const spotOf = (facts, choice) => {
    const rate = rateOf(facts, choice, "spot");
    return rate ? rate.usd_per_hour : choice.spot;
  };

  const ownParts = (values) => {
    const own = (name) => values["prices.own." + name];
    const energy = { pue: values["prices.energy.pue"], usd_per_kwh: values["prices.energy.usd_per_kwh"] };
    const fixed_usd_per_hour = formulas.own_fixed_usd_per_hour({
      purchase_usd: own("purchase_usd"), resale_usd: own("resale_usd"), years: own("years"), idle_watts: own("idle_watts"),
      hosting_usd_per_year: own("hosting_usd_per_year"), staff_usd_per_year: own("staff_usd_per_year"), ...energy,
    });
    const running_usd_per_hour = formulas.own_running_usd_per_hour({ busy_watts: own("busy_watts"), idle_watts: own("idle_watts"), ...energy });
    return { fixed_usd_per_hour, running_usd_per_hour };
  };

  // Whether the purchase price of an own machine was stated; otherwise it is an example.
  const isStated = (facts, values) => facts.given.includes("prices.own.purchase_usd")
    || values["prices.own.purchase_usd"] !== facts.values["prices.own.purchase_usd"];

  // Hourly price of a machine under the reader's plan, as pricing/rates.py; `missing` says why there is none.
  const hourly = (facts, machine, choice, values) => {
    const plan = values["prices.plan"];
    const listing = choice ? { instance: choice.instance, region: choice.region, as_of: choice.as_of, basis: choice.basis, doubtful: choice.doubtful } : {};
    const billing = { granularity_s: choice ? choice.granularity_s : 1, minimum_s: choice ? choice.minimum_s : 0 };
    if (choice && choice.basis === "given") {
      return { ...listing, usd_per_hour: choice.listed, on_demand: choice.listed, spot: null, plan: "on_demand", ...billing };
    }
    const ownMachine = values["prices.own.machine"];
    if (plan === "own" && (!is(ownMachine) || ownMachine === machine.id)) {
      return {
        instance: values["prices.own.name"] || "own machine", basis: isStated(facts, values) ? "stated" : "assumed", doubtful: false,
        usd_per_hour: formulas.own_usd_per_hour({ ...ownParts(values), utilisation_fraction: values["prices.own.utilisation_fraction"] }),
        on_demand: choice ? onDemand(facts, choice, values) : null, spot: choice ? spotOf(facts, choice) : null, plan, ...billing,
      };
    }
    if (!choice) return { missing: machine.missing };
    const noPrice = (which) => ({ missing: "no " + which + " price of " + (choice.instance || "this machine") + " is known" });
    const on_demand = onDemand(facts, choice, values);
    const spot = spotOf(facts, choice);
    // A price from the reader's own rate has that rate's date.
    const rate = rateOf(facts, choice, plan);
    const price = { ...listing, as_of: rate ? rate.as_of : choice.as_of, on_demand, spot, ...billing };
    if (plan === "spot") {
      if (!is(spot)) return noPrice("spot");
      return { ...price, usd_per_hour: spot, plan };
    }
    if (plan === "committed") {
      const committed_usd_per_hour = rate ? rate.usd_per_hour : !is(on_demand) ? null
        : formulas.discounted({ usd_per_hour: on_demand, discount_percent: values["prices.commitment.discount_percent"] });
      if (!is(committed_usd_per_hour)) return noPrice("committed");
      const utilisation_fraction = values["prices.commitment.utilisation_fraction"];
      return { ...price, usd_per_hour: formulas.committed_usd_per_useful_hour({ committed_usd_per_hour, utilisation_fraction }), plan };
    }
    if (!is(on_demand)) return noPrice("on-demand");
    return { ...price, usd_per_hour: on_demand, plan: "on_demand" };
  };

  // Seconds with the interval of the training speed, as in pricing/cost.py.
  const withSpeed = (cell, seconds) => {
    if (!is(seconds)) return null;
    const rate = cell.samples_per_s;
    if (!is(rate)) return exact(seconds);
    return {
      ...rate,
      value: seconds,
      low: rate.high ? seconds * rate.value / rate.high : null,
      high: rate.low ? seconds * rate.value / rate.low : null,
    };
  };

  const spotSeconds = (seconds, values) => {
    const spot = (name) => values["prices.spot." + name];
    return formulas.spot_seconds({
      work_s: seconds, interruptions_per_hour: spot("interruptions_per_hour"), checkpoint_every_s: spot("checkpoint_every_s"),
      checkpoint_s: spot("checkpoint_s"), restart_s: spot("restart_s"),
    });
  };

  const billed = (seconds, price, values, plan, num_nodes) => {
    const others = { on_demand: price.on_demand, spot: price.spot };
    const ofOne = plan === price.plan ? price.usd_per_hour : others[plan];
    if (!is(ofOne)) return null;
    const usd_per_hour = formulas.usd_per_hour_of_nodes({ usd_per_hour: ofOne, num_nodes });
    const work_s = plan === "spot" ? spotSeconds(seconds, values) : seconds;
    if (!is(work_s)) return null; // it would be interrupted for ever
    if (plan === "own") return formulas.usd_of_seconds({ usd_per_hour, seconds: work_s });
    const before_s = values["prices.rental.startup_s"] + values["prices.rental.setup_s"];
    const billed_s = formulas.billed_seconds({ work_s, before_s, minimum_s: price.minimum_s, granularity_s: price.granularity_s });
    return formulas.usd_of_seconds({ usd_per_hour, seconds: billed_s });
  };

  const perPoint = (usd, accuracy, tfidf) => {
    if (!is(usd) || !is(accuracy) || !is(tfidf)) return null;
    const point = (amount, reached) => is(amount) && is(reached)
      ? formulas.usd_per_accuracy_point({ usd: amount, accuracy: reached, baseline_accuracy: tfidf }) : null;
    const value = point(usd.value, accuracy.value);
    return is(value) ? { ...usd, value, low: point(usd.low, accuracy.high), high: point(usd.high, accuracy.low) } : null;
  };

  // Rows of a production run over rows of the measured one, as in pricing/cost.py.
  const rowFactor = (cell, values) => {
    const num_rows = values["prices.retraining.num_rows"];
    return is(num_rows) && is(cell.num_train) ? num_rows / cell.num_train : 1;
  };

  const runOf = (cell, train_s) => map(train_s, (seconds) => seconds + (cell.setup_s || 0) + (cell.evaluate_s || 0));

  // Energy of a run, its cost and its emissions, as in pricing/energy_cost.py.
  const energyOf = (cell, run_s, values) => {
    const energy = (name) => values["prices.energy." + name];
    const measured = runOf(cell, withSpeed(cell, cell.train_s));
    let joules = null;
    if (is(run_s) && is(cell.joules) && measured.value > 0) {
      joules = map(cell.joules, (joule) => joule * (run_s.value / measured.value));
    } else if (is(energy("watts"))) {
      joules = map(run_s, (seconds) => formulas.joules_of_watts({ watts: energy("watts") * cell.num_nodes, seconds }));
    }
    const energy_kwh = map(joules, (value) => formulas.kwh({ joules: value, pue: energy("pue") }));
    return {
      joules,
      energy_kwh,
      energy_usd: map(energy_kwh, (value) => formulas.usd_of_kwh({ energy_kwh: value, usd_per_kwh: energy("usd_per_kwh") })),
      energy_gco2e: map(energy_kwh, (value) => formulas.gco2e({ energy_kwh: value, gco2e_per_kwh: energy("gco2e_per_kwh") })),
    };
  };

  // What the reader or the report's files state about the use of a model, as decision/cost_to_have.py; examples don't count.
  const ownUse = { num_trainings: 1, num_texts: 0, num_labels: null, label_usd: 0, months: null };
  const useOf = (facts, values) => {
    const stated = (name) => facts.given.includes(name) || values[name] !== facts.values[name];
    const months = values["value.horizon_months"];
    const anew = stated("prices.retraining.per_month") ? values["prices.retraining.per_month"] * months : 1;
    const trials = stated("prices.retraining.trials_per_kept") ? values["prices.retraining.trials_per_kept"] : 1;
    return {
      num_trainings: Math.max(1, anew) * trials,
      num_texts: stated("value.items_per_month") ? values["value.items_per_month"] * months : 0,
      num_labels: stated("value.num_labels") ? values["value.num_labels"] : null,
      label_usd: stated("value.label_usd") ? values["value.label_usd"] : 0,
      months: stated("value.items_per_month") || stated("prices.retraining.per_month") ? months : null,
    };
  };

  // Every amount of one cell by its name in `Priced`, as in pricing/cost.py.
  const priceCell = (cell, price, values, use = ownUse) => {
    const factor = rowFactor(cell, values);
    const train_s = withSpeed(cell, is(cell.train_s) ? cell.train_s * factor : null);
    const run_s = runOf(cell, train_s);
    const unpriced = { run_s, ...energyOf(cell, run_s, values) };
    if (price.missing !== undefined) return { ...unpriced, missing: price.missing };
    // Every machine that the cell occupies is paid for.
    const usd_per_hour = formulas.usd_per_hour_of_nodes({ usd_per_hour: price.usd_per_hour, num_nodes: cell.num_nodes });
    const usd = (estimate) => map(estimate, (seconds) => formulas.usd_of_seconds({ usd_per_hour, seconds }));
    const bill = (plan) => map(run_s, (seconds) => billed(seconds, price, values, plan, cell.num_nodes));
    const perThousand = (hourlyUsd) => {
      const rate = cell.samples_per_s;
      if (!is(rate)) return null;
      const each = (samples_per_s) => is(samples_per_s) ? formulas.usd_per_1000_samples({ usd_per_hour: hourlyUsd, samples_per_s }) : null;
      return { ...rate, value: each(rate.value) || 0, low: each(rate.high), high: each(rate.low) };
    };
    const usd_billed = bill(price.plan);
    const usd_per_million_predictions = map(cell.evaluation_samples_per_s, (predictions_per_s) => formulas.usd_per_million_predictions({
      usd_per_hour, predictions_per_s, utilisation_fraction: values["prices.serving.utilisation_fraction"],
    }));
    const usd_to_have = cell.classifier === "majority" ? exact(0) : map(usd_billed, (billed_usd) => formulas.usd_to_have({
      billed_usd, num_trainings: use.num_trainings, num_texts: use.num_texts,
      usd_per_million: is(usd_per_million_predictions) ? usd_per_million_predictions.value : 0,
      num_labels: is(use.num_labels) ? use.num_labels : cell.num_train || 0, label_usd: use.label_usd,
    }));
    // A committed or owned machine costs the same idle or busy: its hourly price already includes idle hours.
    const idle_usd = price.plan === "committed" || price.plan === "own" ? 0
      : values["prices.rental.idle_hours_per_month"] * usd_per_hour;
    return {
      ...unpriced,
      usd_per_hour,
      usd_per_1000_samples: perThousand(usd_per_hour),
      usd_per_epoch: usd(withSpeed(cell, is(cell.epoch_s) ? cell.epoch_s * factor : null)),
      usd_train: usd(train_s),
      usd_setup: usd(exact(cell.setup_s)),
      usd_evaluate: usd(exact(cell.evaluate_s)),
      usd_per_run: usd(run_s),
      usd_to_target: usd(cell.time_to_target_s),
      usd_whole_dataset: usd(withSpeed(cell, cell.whole_dataset_s)),
      usd_billed,
      usd_billed_on_demand: bill("on_demand"),
      usd_billed_spot: bill("spot"),
      usd_per_accuracy_point: perPoint(usd_billed, cell.accuracy, cell.tfidf_accuracy),
      usd_per_month: map(usd_billed, (usd_per_run) => formulas.usd_per_month({
        usd_per_run, runs_per_month: values["prices.retraining.per_month"],
        trials_per_kept: values["prices.retraining.trials_per_kept"], idle_usd,
      })),
      usd_per_million_predictions,
      usd_to_have,
      usd_per_1000_samples_of_share: cell.gpu_share
        ? perThousand(formulas.share({ usd_per_hour, num_used: cell.gpu_share[0], num_gpus: cell.gpu_share[1] })) : null,
    };
  };

  // Net benefit of using one model, as in decision/worth.py.
  const worthOf = (cell, money, values) => {
    if (!is(cell.accuracy) || !is(money.usd_billed)) return null;
    const value = (name) => values["value." + name];
    const isMajority = cell.classifier === "majority";
    const hours = cell.kind === "fine_tune" ? value("engineering_hours") : value("baseline_engineering_hours");
    const upfront = formulas.upfront_usd({
      training_usd: isMajority ? 0 : money.usd_billed.value * values["prices.retraining.trials_per_kept"],
      num_labels: isMajority ? 0 : value("num_labels"), label_usd: value("label_usd"),
      engineering_hours: isMajority ? 0 : hours, engineering_usd_per_hour: value("engineering_usd_per_hour"),
    });
    const upkeep_usd_per_month = isMajority || !is(money.usd_per_month) ? 0 : money.usd_per_month.value;
    const serving_usd_per_million = isMajority || !is(money.usd_per_million_predictions) ? 0 : money.usd_per_million_predictions.value;
    const kinds = [value("false_positive_usd"), value("false_negative_usd")];
    const wrong_usd = cell.errors && is(kinds[0]) && is(kinds[1]) ? formulas.mean_cost_of_wrong_usd({
      false_positive_fraction: cell.errors[0], false_negative_fraction: cell.errors[1],
      false_positive_usd: kinds[0], false_negative_usd: kinds[1],
    }) : value("wrong_usd");
    const right_usd = value("right_usd");
    const annuity = formulas.annuity_months({ horizon_months: value("horizon_months"), discount_fraction_per_year: value("discount_fraction_per_year") });
    const today_usd_an_item = value("today") === "nothing" ? 0
      : formulas.usd_per_item({ accuracy: value("by_hand_accuracy"), right_usd, wrong_usd }) - value("by_hand_usd");
    const items_per_month = value("items_per_month");
    const common = { today_usd_an_item, serving_usd_per_million, upkeep_usd_per_month };
    const item = (accuracy) => formulas.usd_per_item({ accuracy, right_usd, wrong_usd });
    const benefit = (accuracy) => formulas.monthly_benefit_usd({ items_per_month, usd_an_item: item(accuracy), ...common });
    const monthly = {
      value: benefit(cell.accuracy.value),
      low: is(cell.accuracy.low) ? benefit(cell.accuracy.low) : null,
      high: is(cell.accuracy.high) ? benefit(cell.accuracy.high) : null,
    };
    const benefit_usd_per_month = monthly.value;
    return {
      upfront_usd: upfront, upkeep_usd_per_month, serving_usd_per_million, wrong_usd,
      benefit_usd_per_month: monthly,
      net_present_value_usd: map(monthly, (benefit_usd) => formulas.net_present_value_usd({ benefit_usd_per_month: benefit_usd, upfront, annuity })),
      payback_months: formulas.payback_months({ benefit_usd_per_month, upfront }),
      return_fraction: formulas.return_fraction({ benefit_usd_per_month, upfront, horizon_months: value("horizon_months") }),
      break_even_accuracy: formulas.break_even_accuracy({ items_per_month, right_usd, wrong_usd, ...common, upfront, annuity }),
      break_even_items: formulas.break_even_items({ usd_an_item: item(cell.accuracy.value), ...common, upfront, annuity }),
    };
  };

  // Turn the packed rows of page_data.py back into objects, one a cell.
  const unpack = (packed) => {
    const estimate = (packedEstimate) => {
      if (!packedEstimate) return null;
      const [value, low, high, df = 1000, t = 1.9623390808264083] = packedEstimate; // 1000: see comparing.js
      return { value, low, high, df, t };
    };
    const cells = packed.cells.rows.map((row) => {
      const cell = Object.fromEntries(packed.cells.fields.map((name, index) => [name, row[index]]));
      for (const name of ["samples_per_s", "time_to_target_s", "evaluation_samples_per_s", "accuracy", "joules"]) cell[name] = estimate(cell[name]);
      return cell;
    });
    return { ...packed, majority_score: estimate(packed.majority_score), cells };
  };

  // Everything derived: {prices: by machine, money: by cell, worth: by cell}.
  const derive = (facts, state) => {
    const prices = facts.machines.map((machine, index) => {
      const chosen = is(state.choices[index]) ? state.choices[index] : machine.chosen;
      const typed = (state.hourly || {})[index];
      const choice = is(typed) ? { basis: "given", listed: typed, granularity_s: 1, minimum_s: 0 } : is(chosen) ? machine.choices[chosen] : null;
      return hourly(facts, machine, choice, state.values);
    });
    const use = useOf(facts, state.values);
    const money = facts.cells.map((cell) => priceCell(cell, prices[cell.machine], state.values, use));
    const worth = facts.cells.map((cell, index) => worthOf(cell, money[index], state.values));
    return { prices, money, worth, use };
  };

  return { unpack, derive, hourly, priceCell, worthOf, map, spotSeconds };
})();
