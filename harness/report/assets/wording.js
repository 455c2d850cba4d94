"use strict";
// Formats figures as report/formatting.py does; tests/fixtures/wording.json tests both on the same cases.
const wording = (() => {
  const notMeasured = "not measured";
  const is = (value) => value !== null && value !== undefined;
  const mib = 2 ** 20;
  const gib = 2 ** 30;

  const grouped = (digits) => digits.replace(/\B(?=(\d{3})+$)/g, ",");

  // Python rounds an exact half to the even digit, JavaScript away from zero: round as Python.
  const fixed = (value, decimals) => {
    const sign = value < 0 || Object.is(value, -0) ? "-" : "";
    const size = Math.abs(value);
    if (size >= 1e21) return sign + grouped(BigInt(size).toString()) + (decimals ? "." + "0".repeat(decimals) : "");
    let shown = size.toFixed(decimals);
    const exact = size.toFixed(Math.min(100, decimals + 30));
    const point = exact.indexOf(".");
    const rest = exact.slice(point + 1 + decimals);
    if (/^50*$/.test(rest) && "13579".includes(shown.slice(-1))) shown = exact.slice(0, decimals ? point + 1 + decimals : point);
    const [whole, part] = shown.split(".");
    return sign + grouped(whole) + (part ? "." + part : "");
  };

  const digits = (value, count) => {
    if (value === 0) return "0";
    if (!Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
    const exponent = Number(value.toExponential(count - 1).split("e")[1]); // after rounding: 99.99 has the exponent of 100
    return fixed(value, Math.min(100, Math.max(0, count - 1 - exponent)));
  };

  // Currencies with a sign of their own; others are shown by their code.
  const signs = new Map(Object.entries({ USD: "$", EUR: "€", GBP: "£", JPY: "¥", INR: "₹", KRW: "₩" }));
  const sign = (code) => signs.get(code) || code + "\u00a0";

  // An amount that is already in the currency `code`.
  const amount = (value, code = "USD") => {
    if (!is(value)) return notMeasured;
    const symbol = sign(code);
    if (value < 0) return "-" + amount(-value, code);
    if (value >= 1e12) return ">" + symbol + fixed(1e12, 0);
    if (value >= 10000) return symbol + fixed(value, 0);
    if (value >= 1) return symbol + fixed(value, 2);
    if (value > 0 && value < 1e-6) return "<" + symbol + "0.000001";
    return symbol + digits(value, value >= 1e-3 ? 3 : 2);
  };

  // An amount for a sentence: two significant digits.
  const prose = (value, code = "USD") => {
    if (!is(value)) return notMeasured;
    const size = Math.abs(value);
    if (size < 1e-6 || size >= 1e12) return amount(value, code);
    const exponent = Number(size.toExponential(1).split("e")[1]);
    const whole = exponent > 1 ? 10 ** (exponent - 1) : 1;
    const shown = exponent > 1 ? fixed(Number(fixed(size / whole, 0)) * whole, 0) : digits(size, 2);
    return (value < 0 ? "-" : "") + sign(code) + shown;
  };

  const months = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
  // An ISO date or month, such as 24 September 2026; other text stays as it is.
  const date = (text) => {
    const [year, month = "", day = ""] = text.split("-");
    const name = /^\d+$/.test(year) && /^\d+$/.test(month) ? months[Number(month) - 1] : undefined;
    return name ? [day.replace(/^0+/, ""), name, year].filter(Boolean).join(" ") : text;
  };

  const perHour = (value, code = "USD") => {
    const [whole, decimals] = fixed(value, 4).split(".");
    return sign(code) + whole + "." + decimals.replace(/0+$/, "").padEnd(2, "0");
  };

  const seconds = (value) => {
    if (!is(value)) return notMeasured;
    if (value > 0 && value < 1e-3) return "<0.001 s";
    if (value < 90) return digits(value, value < 10 ? 2 : 3) + " s";
    return value < 5400 ? digits(value / 60, 3) + " min" : digits(value / 3600, 3) + " h";
  };

  const memory = (value) => {
    if (!is(value)) return notMeasured;
    return value >= gib ? fixed(value / gib, 2) + " GiB" : fixed(value / mib, 0) + " MiB";
  };

  const ungrouped = (value) => fixed(value, 1).replaceAll(",", "");
  const percent = (fraction) => is(fraction) ? ungrouped(fraction * 100) + "%" : notMeasured;
  const number = (value, count = 3) => is(value) ? digits(value, count) : notMeasured;
  const times = (ratio) => digits(ratio, 2) + " times";
  const plural = (count, noun) => fixed(count, 0) + " " + noun + (count === 1 ? "" : "s");

  const interval = (estimate, unit, code = "USD") => {
    if (!is(estimate) || !is(estimate.low) || !is(estimate.high)) return "";
    if (unit === "percent") return ungrouped(estimate.low * 100) + " to " + ungrouped(estimate.high * 100) + "%";
    const show = unit === "usd" ? (value) => amount(value, code) : number;
    const [low, high] = [show(estimate.low), show(estimate.high)];
    if (low !== high || !estimate.value) return low + " to " + high;
    return "±" + digits((estimate.high - estimate.low) / 2 / Math.abs(estimate.value) * 100, 1) + "%";
  };

  const listed = (parts) => parts.length < 2 ? parts.join("") : parts.slice(0, -1).join(", ") + " and " + parts[parts.length - 1];

  return { listed, sign, amount, prose, date, perHour, seconds, memory, percent, number, times, plural, interval, fixed, notMeasured };
})();
