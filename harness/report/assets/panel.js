"use strict";
// Builds the controls from the page's facts; they change the state and show what is wrong with a value.
const panel = (() => {
  const is = (value) => value !== null && value !== undefined;
  const groups = [
    ["Machine and price", ["prices.plan", "prices.discount_percent", "prices.currency.", "prices.rental.", "prices.commitment."]],
    ["How often, and answering with it", ["prices.retraining.", "prices.serving."]],
    ["Is it worth it", ["value."]],
    ["Own hardware", ["prices.own.", "prices.energy."]],
    ["Spot", ["prices.spot."]],
  ];
  const words = {
    on_demand: "by the hour, on demand", spot: "spot: cheaper, may be interrupted", committed: "committed: reserved, or a savings plan",
    own: "your own hardware", nothing: "not at all", by_hand: "by hand",
  };
  const isShare = (input) => input.is_number && /(_fraction(_|$)|_accuracy$)/.test(input.name);

  const make = (tag, fields = {}, ...inside) => {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(fields)) {
      if (key in element && key !== "list") element[key] = value; else element.setAttribute(key, value);
    }
    element.append(...inside);
    return element;
  };

  // A control with its label, unit, explanation and an error message.
  const field = (id, title, control, unit = "", why = "") => {
    control.id = id;
    const message = make("span", { className: "problem", id: id + "-problem" });
    const about = why ? [make("span", { className: "why", id: id + "-why", textContent: why })] : [];
    control.setAttribute("aria-describedby", [...about, message].map((part) => part.id).join(" "));
    const box = make("div", { className: "input" }, make("label", { htmlFor: id, textContent: title }),
      make("span", { className: "control" }, control, ...(unit ? [make("span", { className: "unit", textContent: unit })] : [])), ...about, message);
    const showProblem = (text) => {
      message.textContent = text || "";
      if (text) control.setAttribute("aria-invalid", "true"); else control.removeAttribute("aria-invalid");
    };
    return { box, control, showProblem };
  };

  const numeral = (input, value) => !is(value) ? "" : isShare(input) ? String(Number((value * 100).toPrecision(12))) : String(value);
  const options = (select, pairs) => select.replaceChildren(...pairs.map(([value, text]) => make("option", { value, textContent: text })));

  // The control of one assumption. `get` returns the state, `set` changes it.
  const assumption = (input, facts, get, set) => {
    const percent = isShare(input);
    const isExample = input.name !== "prices.plan" && !input.name.startsWith("prices.currency."); // these two are choices, not estimates
    const control = input.choices.length ? make("select")
      : make("input", { type: input.is_number ? "number" : input.is_date ? "date" : "text", step: "any", autocomplete: "off", spellcheck: false });
    if (input.choices.length) options(control, input.choices.map((value) => [value, words[value] || value]));
    if (input.is_number) {
      const scale = percent ? 100 : 1;
      if (is(input.min)) control.min = input.min * scale;
      if (is(input.max)) control.max = input.max * scale;
      control.inputMode = "decimal";
      if (input.is_optional) control.placeholder = "not given";
    }
    const made = field("in-" + input.name.replace(/[._]/g, "-"), input.title, control, percent ? "%" : input.unit, input.why);
    const origin = make("span", { className: "origin" });
    made.box.querySelector(".control").append(origin);
    const read = () => {
      if (control.validity && control.validity.badInput) return NaN;
      if (control.value === "") return null;
      if (!input.is_number) return control.value;
      return percent ? Number((Number(control.value) / 100).toPrecision(15)) : Number(control.value);
    };
    control.addEventListener("input", () => {
      const value = read();
      const problem = address.problemOf(input, value);
      made.showProblem(problem);
      if (problem === null) set({ values: { ...get().values, [input.name]: value } });
    });
    const show = (state, own) => {
      const value = state.values[input.name];
      if (document.activeElement !== control) {
        control.value = input.is_number ? numeral(input, value) : is(value) ? value : "";
        made.showProblem(null);
      }
      const changed = value !== own.values[input.name];
      origin.textContent = changed ? "changed here" : facts.given.includes(input.name) ? "from your file"
        : facts.measured.includes(input.name) ? "measured" : is(value) && isExample ? "an example" : "";
      made.box.classList.toggle("changed", changed);
      return changed;
    };
    return { ...made, name: input.name, show };
  };

  // The choice among a machine's possible prices.
  const priceOf = (machine, index, title, get, set) => {
    const control = make("select");
    const why = machine.has_gpus ? "elsewhere: with the same card and number of them, so the measured seconds are taken to hold"
      : "what this machine is; a CPU of another kind must be measured";
    const made = field("price-" + index, title, control, "", why);
    made.box.classList.add("wide");
    let shownRate = null;
    control.addEventListener("change", () => set({ choices: { ...get().choices, [index]: Number(control.value) } }));
    const show = (state) => {
      const moneyFormat = decision.moneyFormat(state.values);
      const rate = moneyFormat.code + state.values["prices.currency.per_usd"];
      if (rate !== shownRate && !address.clashes(state.values).length) {
        const text = (choice) => [choice.instance || "as given", choice.provider, choice.region].filter(is).join(", ")
          + (is(choice.listed) ? `: ${moneyFormat.perHour(choice.listed)} an hour` : ": your own rate") + (choice.as_of ? ` (${choice.as_of})` : "");
        const none = is(machine.chosen) ? [] : [["", "no price known"]];
        options(control, [...none, ...machine.choices.map((choice, place) => [String(place), text(choice)])]);
        shownRate = rate;
      }
      const chosen = is(state.choices[index]) ? state.choices[index] : machine.chosen;
      control.value = is(chosen) ? String(chosen) : "";
      const changed = chosen !== machine.chosen;
      made.box.classList.toggle("changed", changed);
      return changed;
    };
    return { ...made, show };
  };

  const needed = (get, set) => {
    const control = make("input", { type: "text", placeholder: "as the best", inputMode: "decimal", autocomplete: "off", spellcheck: false });
    const made = field("needed", "Texts that must be right", control, "%");
    control.addEventListener("input", () => {
      const isEmpty = control.value.trim() === "";
      const value = address.share(control.value);
      made.showProblem(isEmpty || value !== null ? null : "78, 78% or 0.78; 1 alone could mean 1% or 100%");
      if (isEmpty || value !== null) set({ accuracy: isEmpty ? null : value });
    });
    const show = (state) => {
      if (document.activeElement !== control) {
        control.value = is(state.accuracy) ? String(Number((state.accuracy * 100).toPrecision(12))) : "";
        made.showProblem(null);
      }
    };
    return { ...made, show };
  };

  // The reader's own hourly price of a machine, in the currency of the page.
  const ownHourly = (id, index, title, get, set) => {
    const control = make("input", { type: "text", placeholder: "not given", inputMode: "decimal", autocomplete: "off", spellcheck: false });
    const made = field(id, title, control, "USD");
    const perUsd = () => get().values["prices.currency.per_usd"];
    control.addEventListener("input", () => {
      const isEmpty = control.value.trim() === "";
      const value = Number(control.value);
      const isPrice = !isEmpty && Number.isFinite(value) && value > 0;
      made.showProblem(isEmpty || isPrice ? null : "a number above 0");
      if (isEmpty || isPrice) set({ hourly: { ...get().hourly, [index]: isEmpty ? null : Number((value / perUsd()).toPrecision(15)) } });
    });
    const show = (state) => {
      const typed = state.hourly[index];
      if (document.activeElement !== control) {
        control.value = is(typed) ? String(Number((typed * perUsd()).toPrecision(12))) : "";
        made.showProblem(null);
      }
      if (!address.clashes(state.values).length) made.box.querySelector(".unit").textContent = state.values["prices.currency.code"];
      made.box.classList.toggle("changed", is(typed));
      return is(typed);
    };
    return { ...made, show };
  };

  // Texts a month: empty until the reader or the report's files state it, because the example is nobody's number.
  const textsAMonth = (facts, get, set) => {
    const name = "value.items_per_month";
    const control = make("input", { type: "text", placeholder: "not given", inputMode: "decimal", autocomplete: "off", spellcheck: false });
    const made = field("texts", "Texts to label a month", control);
    control.addEventListener("input", () => {
      const isEmpty = control.value.trim() === "";
      const value = Number(control.value);
      const isCount = !isEmpty && Number.isFinite(value) && value >= 0;
      made.showProblem(isEmpty || isCount ? null : "a number");
      if (isEmpty || isCount) set({ values: { ...get().values, [name]: isEmpty ? facts.values[name] : value } });
    });
    const show = (state) => {
      if (document.activeElement === control) return;
      control.value = ranking.isStated(facts, state, name) ? String(state.values[name]) : "";
      made.showProblem(null);
    };
    return { ...made, show };
  };

  // A value as text, with its unit.
  const shown = (input, value) => {
    if (!is(value)) return "not given";
    if (!input.is_number) return words[value] || String(value);
    return (isShare(input) ? wording.percent(value) : String(value)) + (input.unit ? " " + input.unit : "");
  };

  const whichMachine = (facts, get, set) => {
    const control = make("select");
    options(control, [["", `any of the ${facts.machines.length} measured`], ...facts.machines.map((machine, index) => [String(index), machine.label])]);
    control.addEventListener("change", () => set({ machine: control.value === "" ? null : Number(control.value) }));
    const show = (state) => { control.value = is(state.machine) ? String(state.machine) : ""; };
    return { ...field("which-machine", "Machine", control), show };
  };

  const mostPrices = 12; // more selects would bury the other controls

  // Fill both boxes; return `show`, which sets every control from a state. `main` is the index of the first control's machine.
  const build = (first, rest, facts, own, main, get, set) => {
    const inputs = facts.inputs.map((input) => assumption(input, facts, get, set));
    const several = facts.machines.length > 1;
    const named = (text, machine) => several ? `${text} of ${machine.label}` : text;
    const machines = facts.machines.map((machine, index) => [machine, index]);
    const prices = machines.filter(([machine]) => machine.choices.length).slice(0, mostPrices).map(([machine, index]) =>
      priceOf(machine, index, named("Machine and its price", machine), get, set));
    const others = machines.filter(([, index]) => index !== main).slice(0, mostPrices).map(([machine, index]) =>
      ownHourly("hourly-" + index, index, named("Your price an hour", machine), get, set));
    const price = ownHourly("hourly", main, "Your price an hour", get, set);
    price.control.title = "of " + facts.machines[main].label;
    const top = [needed(get, set), price, textsAMonth(facts, get, set)];
    first.append(...top.map((control) => control.box));
    const boxes = groups.map(([title, prefixes]) => {
      const members = inputs.filter((input) => prefixes.some((prefix) => input.name.startsWith(prefix)));
      if (title === groups[0][0]) members.unshift(...(several ? [whichMachine(facts, get, set)] : []), ...prices, ...others);
      const count = make("span", { className: "count" });
      rest.append(make("details", { className: "group" }, make("summary", {}, title, " ", count), make("div", { className: "inputs" }, ...members.map((control) => control.box))));
      return { members, count };
    });
    const show = (state) => {
      for (const control of top) control.show(state, own);
      for (const { members, count } of boxes) {
        const changed = members.filter((control) => control.show(state, own)).length;
        count.textContent = changed ? `${changed} changed` : "";
      }
      for (const [name, , problem] of address.clashes(state.values)) inputs.find((input) => input.name === name).showProblem(problem);
    };
    return { show };
  };

  return { build, make, words, shown };
})();
