"use strict";
// Reads and writes the state in the page's address, as #view=engineer&prices.plan=spot: only what the reader changed.
const address = (() => {
  const is = (value) => value !== null && value !== undefined;

  // The state in which the report was written.
  const own = (facts) => ({ view: "decide", accuracy: null, machine: null, choices: {}, hourly: {}, values: { ...facts.values } });

  // A share of a text such as 0.78, 78 or 78%: above 1 it is percent; null for anything else, and for exactly 1, which could
  // mean either. As parse_share of schema/settings.py.
  const share = (text) => {
    const isPercent = text.trim().endsWith("%");
    const digits = text.trim().replace(/%$/, "").trim();
    const number = digits === "" ? NaN : Number(digits);
    if (number === 1 && !isPercent) return null;
    const value = isPercent || number > 1 ? number / 100 : number;
    return value > 0 && value <= 1 ? Number(value.toPrecision(12)) : null;
  };

  const nameOf = (choice) => choice.basis === "given" ? "given"
    : [choice.provider, choice.instance, choice.region].filter(is).join("/");

  // What is wrong with a value, as text; null if it is valid.
  const problemOf = (input, value) => {
    if (!is(value)) return input.is_optional ? null : "a value is needed";
    if (input.choices.length) return input.choices.includes(value) ? null : "one of " + input.choices.join(", ");
    if (input.is_date) return /^\d{4}-\d\d-\d\d$/.test(value) ? null : "a date";
    if (!input.is_number) {
      if (typeof value !== "string" || value.length > 40) return "a short text";
      return is(input.pattern) && !new RegExp(input.pattern).test(value) ? input.why : null;
    }
    if (typeof value !== "number" || !Number.isFinite(value)) return "a number";
    if (is(input.min) && value < input.min) return "no less than " + input.min;
    if (is(input.above) && value <= input.above) return "more than " + input.above;
    if (is(input.max) && value > input.max) return "no more than " + input.max;
    if (is(input.below) && value >= input.below) return "less than " + input.below;
    return null;
  };

  const atPar = new Set(["BMD", "BSD", "PAB"]); // currencies pegged at 1 to the US dollar

  // Contradictions between two values, as the validators of schema/assumptions.py: [name, the other's name, text].
  const clashes = (values) => {
    const problems = [];
    const own = (name) => values["prices.own." + name];
    if (values["prices.currency.code"] === "USD" && values["prices.currency.per_usd"] !== 1) {
      problems.push(["prices.currency.per_usd", "prices.currency.code", "1 with USD; choose another currency first"]);
    }
    if (values["prices.currency.code"] !== "USD") {
      if (values["prices.currency.per_usd"] === 1 && !atPar.has(values["prices.currency.code"])) {
        problems.push(["prices.currency.per_usd", "prices.currency.code", "the rate of this currency, and its date"]);
      }
      if (!is(values["prices.currency.as_of"])) problems.push(["prices.currency.as_of", "prices.currency.code", "the date of the rate"]);
    }
    if (own("resale_usd") > own("purchase_usd")) problems.push(["prices.own.resale_usd", "prices.own.purchase_usd", "no more than was paid for it"]);
    if (own("idle_watts") > own("busy_watts")) problems.push(["prices.own.idle_watts", "prices.own.busy_watts", "no more than while it works"]);
    const kinds = ["value.false_positive_usd", "value.false_negative_usd"];
    for (const [one, other] of [kinds, [...kinds].reverse()]) {
      if (!is(values[one]) && is(values[other])) problems.push([one, other, "both kinds of error, or neither"]);
    }
    return problems;
  };

  const read = (input, text) => {
    if (text === "") return null;
    return input.is_number ? (text.trim() === "" ? NaN : Number(text)) : text;
  };

  // [state, names of the ignored parts]: whatever an address holds, the page works, and says what it ignored.
  const parse = (facts, fragment) => {
    const state = own(facts);
    const ignored = [];
    const inputs = new Map(facts.inputs.map((input) => [input.name, input]));
    for (const part of fragment.replace(/^#/, "").split("&").filter(Boolean)) {
      const cut = part.indexOf("=");
      let [name, text] = cut < 0 ? [part, ""] : [part.slice(0, cut), part.slice(cut + 1)];
      try {
        [name, text] = [decodeURIComponent(name), decodeURIComponent(text)];
      } catch { /* a stray %: keep the text as it is */ }
      if (!apply(facts, state, inputs, name, text)) ignored.push(name.slice(0, 40));
    }
    for (let found = clashes(state.values); found.length; found = clashes(state.values)) {
      for (const key of found[0].slice(0, 2)) state.values[key] = facts.values[key];
      ignored.push(found[0][0]);
    }
    return [state, ignored];
  };

  // Apply one part of an address to the state; return whether it was understood.
  const apply = (facts, state, inputs, name, text) => {
    if (name === "view") {
      if (!["decide", "engineer"].includes(text)) return false;
      state.view = text;
      return true;
    }
    if (name === "accuracy") {
      const value = share(text);
      if (value === null) return false;
      state.accuracy = value;
      return true;
    }
    if (name === "machine" || name.startsWith("price.") || name.startsWith("hourly.")) {
      const id = name === "machine" ? text : name.slice(name.indexOf(".") + 1);
      const index = facts.machines.findIndex((machine) => machine.id === id);
      if (index < 0) return false;
      if (name === "machine") {
        state.machine = index;
        return true;
      }
      if (name.startsWith("hourly.")) {
        const usd = text.trim() === "" ? NaN : Number(text);
        if (!(usd > 0 && Number.isFinite(usd))) return false;
        state.hourly[index] = usd;
        return true;
      }
      const choice = facts.machines[index].choices.findIndex((option) => nameOf(option) === text);
      if (choice >= 0) state.choices[index] = choice;
      return choice >= 0;
    }
    const input = inputs.get(name);
    if (!input) return false;
    const value = read(input, text);
    if (problemOf(input, value) !== null) return false;
    state.values[name] = value;
    return true;
  };

  const format = (facts, state) => {
    const parts = [];
    const add = (name, text) => parts.push(encodeURIComponent(name) + "=" + encodeURIComponent(text));
    if (state.view !== "decide") add("view", state.view);
    if (is(state.accuracy)) add("accuracy", state.accuracy === 1 ? "100" : String(state.accuracy));
    if (is(state.machine)) add("machine", facts.machines[state.machine].id);
    facts.machines.forEach((machine, index) => {
      const chosen = state.choices[index];
      if (is(chosen) && chosen !== machine.chosen) add("price." + machine.id, nameOf(machine.choices[chosen]));
      if (is(state.hourly[index])) add("hourly." + machine.id, String(state.hourly[index]));
    });
    for (const { name } of facts.inputs) {
      const value = state.values[name];
      if (value !== facts.values[name]) add(name, is(value) ? String(value) : "");
    }
    return parts.length ? "#" + parts.join("&") : "";
  };

  // Names of the changed assumptions; view, accuracy and machine aren't assumptions.
  const changes = (facts, state) => [
    ...facts.machines.filter((machine, index) => is(state.choices[index]) && state.choices[index] !== machine.chosen)
      .map((machine) => "price." + machine.id),
    ...facts.machines.filter((machine, index) => is(state.hourly[index])).map((machine) => "hourly." + machine.id),
    ...facts.inputs.map((input) => input.name).filter((name) => state.values[name] !== facts.values[name]),
  ];

  return { share, own, parse, format, changes, problemOf, clashes, nameOf };
})();
