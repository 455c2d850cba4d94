"use strict";
// Generated from harness/pricing/formulas.py by `make formulas`: edit that file. Each function takes one object, with
// the names of the Python arguments.
const formulas = (() => {
  const isKnown = (value) => value !== null && value !== undefined;
  const SECONDS_PER_HOUR = 3600;
  const HOURS_PER_YEAR = 8760;
  const MONTHS_PER_YEAR = 12;
  const JOULES_PER_KWH = 3600000;
  const usd_of_seconds = ({ usd_per_hour, seconds }) => !isKnown(seconds) ? null : usd_per_hour / SECONDS_PER_HOUR * seconds;
  const usd_per_1000_samples = ({ usd_per_hour, samples_per_s }) => samples_per_s ? usd_per_hour / SECONDS_PER_HOUR * 1000 / samples_per_s : null;
  const discounted = ({ usd_per_hour, discount_percent }) => usd_per_hour * (1 - discount_percent / 100);
  const usd_per_hour_of_nodes = ({ usd_per_hour, num_nodes }) => usd_per_hour * num_nodes;
  const converted = ({ usd, per_usd }) => usd * per_usd;
  const share = ({ usd_per_hour, num_used, num_gpus }) => usd_per_hour * num_used / num_gpus;
  const billed_seconds = ({ work_s, before_s, minimum_s, granularity_s }) => {
    const seconds = Math.max(work_s + before_s, minimum_s);
    return Math.ceil(seconds / granularity_s - 1e-09) * granularity_s;
  };
  const spot_seconds = ({ work_s, interruptions_per_hour, checkpoint_every_s, checkpoint_s, restart_s }) => {
    let expected;
    if (work_s <= 0) {
      return 0;
    }
    const num_whole = Math.max(Math.ceil(work_s / checkpoint_every_s - 1e-09) - 1, 0);
    const last_s = work_s - num_whole * checkpoint_every_s;
    const whole_s = checkpoint_every_s + checkpoint_s;
    const rate = interruptions_per_hour / SECONDS_PER_HOUR;
    if (rate <= 0) {
      expected = num_whole * whole_s + last_s;
    } else {
      const segments = (num_whole ? num_whole * Math.expm1(rate * whole_s) : 0) + Math.expm1(rate * last_s);
      expected = Math.exp(rate * restart_s) * segments / rate;
    }
    return Number.isFinite(expected) ? expected : null;
  };
  const own_usd_per_hour = ({ fixed_usd_per_hour, running_usd_per_hour, utilisation_fraction }) => fixed_usd_per_hour / utilisation_fraction + running_usd_per_hour;
  const own_fixed_usd_per_hour = ({ purchase_usd, resale_usd, years, idle_watts, pue, usd_per_kwh, hosting_usd_per_year, staff_usd_per_year }) => {
    const yearly = (purchase_usd - resale_usd) / years + hosting_usd_per_year + staff_usd_per_year;
    return yearly / HOURS_PER_YEAR + idle_watts / 1000 * pue * usd_per_kwh;
  };
  const own_running_usd_per_hour = ({ busy_watts, idle_watts, pue, usd_per_kwh }) => (busy_watts - idle_watts) / 1000 * pue * usd_per_kwh;
  const break_even_utilisation = ({ fixed_usd_per_hour, running_usd_per_hour, rent_usd_per_hour }) => {
    const margin = rent_usd_per_hour - running_usd_per_hour;
    return margin > 0 ? fixed_usd_per_hour / margin : null;
  };
  const commitment_break_even = ({ committed_usd_per_hour, on_demand_usd_per_hour }) => committed_usd_per_hour / on_demand_usd_per_hour;
  const committed_usd_per_useful_hour = ({ committed_usd_per_hour, utilisation_fraction }) => committed_usd_per_hour / utilisation_fraction;
  const usd_per_month = ({ usd_per_run, runs_per_month, trials_per_kept, idle_usd }) => usd_per_run * runs_per_month * trials_per_kept + idle_usd;
  const usd_to_have = ({ billed_usd, num_trainings, num_texts, usd_per_million, num_labels, label_usd }) => billed_usd * num_trainings + num_texts * usd_per_million / 1000000 + num_labels * label_usd;
  const usd_per_accuracy_point = ({ usd, accuracy, baseline_accuracy }) => {
    const points = (accuracy - baseline_accuracy) * 100;
    return points > 0 ? usd / points : null;
  };
  const usd_per_million_predictions = ({ usd_per_hour, predictions_per_s, utilisation_fraction }) => {
    if (!predictions_per_s) {
      return null;
    }
    return usd_per_hour / SECONDS_PER_HOUR / (predictions_per_s * utilisation_fraction) * 1000000;
  };
  const joules_of_watts = ({ watts, seconds }) => watts * seconds;
  const kwh = ({ joules, pue }) => joules / JOULES_PER_KWH * pue;
  const gco2e = ({ energy_kwh, gco2e_per_kwh }) => energy_kwh * gco2e_per_kwh;
  const usd_of_kwh = ({ energy_kwh, usd_per_kwh }) => energy_kwh * usd_per_kwh;
  const invoice_ratio = ({ invoice_usd, estimate_usd }) => estimate_usd > 0 ? invoice_usd / estimate_usd : null;
  const mean_cost_of_wrong_usd = ({ false_positive_fraction, false_negative_fraction, false_positive_usd, false_negative_usd }) => {
    const wrong = false_positive_fraction + false_negative_fraction;
    if (wrong <= 0) {
      return (false_positive_usd + false_negative_usd) / 2;
    }
    return (false_positive_fraction * false_positive_usd + false_negative_fraction * false_negative_usd) / wrong;
  };
  const usd_per_item = ({ accuracy, right_usd, wrong_usd }) => accuracy * right_usd - (1 - accuracy) * wrong_usd;
  const monthly_benefit_usd = ({ items_per_month, usd_an_item, today_usd_an_item, serving_usd_per_million, upkeep_usd_per_month }) => {
    const each = usd_an_item - today_usd_an_item - serving_usd_per_million / 1000000;
    return items_per_month * each - upkeep_usd_per_month;
  };
  const upfront_usd = ({ training_usd, num_labels, label_usd, engineering_hours, engineering_usd_per_hour }) => training_usd + num_labels * label_usd + engineering_hours * engineering_usd_per_hour;
  const annuity_months = ({ horizon_months, discount_fraction_per_year }) => {
    const log_monthly = Math.log1p(discount_fraction_per_year) / MONTHS_PER_YEAR;
    if (log_monthly === 0) {
      return horizon_months;
    }
    return -Math.expm1(-log_monthly * horizon_months) / Math.expm1(log_monthly);
  };
  const net_present_value_usd = ({ benefit_usd_per_month, upfront, annuity }) => benefit_usd_per_month * annuity - upfront;
  const payback_months = ({ benefit_usd_per_month, upfront }) => benefit_usd_per_month > 0 ? upfront / benefit_usd_per_month : null;
  const return_fraction = ({ benefit_usd_per_month, upfront, horizon_months }) => upfront > 0 ? (benefit_usd_per_month * horizon_months - upfront) / upfront : null;
  const break_even_accuracy = ({ items_per_month, right_usd, wrong_usd, today_usd_an_item, serving_usd_per_million, upkeep_usd_per_month, upfront, annuity }) => {
    const spread = items_per_month * (right_usd + wrong_usd);
    if (spread <= 0 || annuity <= 0) {
      return null;
    }
    const needed = upfront / annuity + upkeep_usd_per_month;
    return (needed + items_per_month * (today_usd_an_item + serving_usd_per_million / 1000000 + wrong_usd)) / spread;
  };
  const break_even_items = ({ usd_an_item, today_usd_an_item, serving_usd_per_million, upkeep_usd_per_month, upfront, annuity }) => {
    const each = usd_an_item - today_usd_an_item - serving_usd_per_million / 1000000;
    if (each <= 0 || annuity <= 0) {
      return null;
    }
    return (upfront / annuity + upkeep_usd_per_month) / each;
  };
  return {
    usd_of_seconds,
    usd_per_1000_samples,
    discounted,
    usd_per_hour_of_nodes,
    converted,
    share,
    billed_seconds,
    spot_seconds,
    own_usd_per_hour,
    own_fixed_usd_per_hour,
    own_running_usd_per_hour,
    break_even_utilisation,
    commitment_break_even,
    committed_usd_per_useful_hour,
    usd_per_month,
    usd_to_have,
    usd_per_accuracy_point,
    usd_per_million_predictions,
    joules_of_watts,
    kwh,
    gco2e,
    usd_of_kwh,
    invoice_ratio,
    mean_cost_of_wrong_usd,
    usd_per_item,
    monthly_benefit_usd,
    upfront_usd,
    annuity_months,
    net_present_value_usd,
    payback_months,
    return_fraction,
    break_even_accuracy,
    break_even_items,
  };
})();
