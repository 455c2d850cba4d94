"use strict";
// Draws the visible charts in the reader's colour scheme and width.
const drawing = (() => {
  const root = document.documentElement;
  // Without the mode bar there is no link to Plotly's site and no button to upload a chart.
  const config = { displayModeBar: false, responsive: false, // page.js draws anew: Plotly would also drop the height
    scrollZoom: false, doubleClick: false, showTips: false };
  const narrow = 480;
  const printed = 660; // pixels: width of A4 between its margins
  const printedBeside = 315; // pixels: two charts of the decider's view side by side

  const onFirstScreen = new Map([["cost", 310], ["finding", 240]]); // pixels, in the decider's view
  const onAnswerPage = 190; // pixels: height of the chart printed below the answer, without its legend
  const wholePage = 880; // pixels: height of a chart that fills a page of A4 below its section's heading
  const legendLine = 20; // pixels
  const usualLines = 3; // lines of legend that a chart's height includes

  const colours = () => {
    const style = getComputedStyle(root);
    return (name) => style.getPropertyValue("--" + name).trim();
  };

  const themedTrace = (trace, colour, ontoEnds) => {
    const role = trace.meta && trace.meta.colour;
    if (!role) return trace;
    const traceColour = colour(role);
    const themed = { ...trace };
    themed.marker = { ...trace.marker, color: traceColour };
    if (trace.type !== "bar") themed.line = { ...trace.line, color: traceColour };
    for (const key of ["error_x", "error_y"]) {
      if (trace[key]) themed[key] = { ...trace[key], color: trace.type === "bar" ? colour("ink") : traceColour };
    }
    if (ontoEnds && trace.meta.end_label) themed.showlegend = false;
    if ((trace.mode || "").includes("text")) themed.textfont = { ...trace.textfont, color: colour("ink") };
    return themed;
  };

  const tickRoom = 72; // pixels for a tick's label
  const beside = 70; // pixels of a plot's width that its vertical axis takes
  const fewerTicks = (axis, room) => {
    const most = Math.max(2, Math.floor(room / tickRoom));
    if (!axis.tickvals) return axis.type === "category" ? axis : { ...axis, nticks: Math.min(axis.nticks || most, most) };
    const step = Math.ceil(axis.tickvals.length / most);
    const kept = (_, place) => place % step === 0;
    return { ...axis, tickvals: axis.tickvals.filter(kept), ticktext: axis.ticktext.filter(kept) };
  };

  const themedLayout = (layout, colour, width) => {
    const themed = { ...layout, font: { ...layout.font, color: colour("ink") } };
    themed.hoverlabel = { ...layout.hoverlabel, bgcolor: colour("panel"), bordercolor: colour("line"), font: { ...layout.hoverlabel.font, color: colour("ink") } };
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis/.test(key)) themed[key] = { ...layout[key], gridcolor: colour("grid"), linecolor: colour("line") };
    }
    if (width < narrow) themed.font.size = 12;
    themed.xaxis = fewerTicks(themed.xaxis, width - layout.margin.r - beside);
    return themed;
  };

  const isHidden = (box) => box.closest("[hidden], details:not([open])") !== null || box.offsetParent === null;

  // Number of lines of a legend, in which the longest name decides how many fit in one line.
  const legendLines = (names, width, letter) => {
    const longest = Math.max(0, ...names.map((name) => name.length));
    const inLine = Math.max(1, Math.floor(width / (longest * letter + 45)));
    return Math.ceil(names.length / inLine);
  };

  // `chart` is {data, layout}; `usual` is its height in pixels, for a legend of the usual number of lines.
  const draw = (box, chart, usual) => {
    const height = root.dataset.view === "decide" && chart.layout.yaxis.visible !== false ? Math.min(usual, onFirstScreen.get(box.closest("section").id) || usual) : usual;
    const colour = colours();
    const isBeside = root.dataset.view === "decide" && onFirstScreen.has(box.closest("section").id);
    const width = root.dataset.print ? (isBeside ? printedBeside : printed) : box.clientWidth;
    const ontoEnds = width >= narrow; // else lines are named in the legend
    const data = chart.data.map((trace) => themedTrace(trace, colour, ontoEnds));
    const names = data.filter((trace) => trace.showlegend !== false && chart.layout.showlegend !== false).map((trace) => trace.name || "");
    const shown = names.length;
    const lines = legendLines(names, width, root.dataset.print ? 6.2 : 7.5);
    const margin = { ...chart.layout.margin, r: Math.max(chart.layout.margin.r, ontoEnds ? labels.marginOf(chart.data, width) : 0) };
    const layout = themedLayout({ ...chart.layout, margin }, colour, width);
    const isBars = chart.layout.yaxis.visible === false; // whose height follows from their number
    // Below a narrow plot each name of the legend has a line of its own, which adds to the height.
    layout.height = height;
    if (width < narrow && shown > 1) layout.height = height + 14 * shown;
    else if (lines > usualLines) layout.height = height + legendLine * (lines - usualLines);
    if (root.dataset.print) {
      layout.legend = { ...layout.legend, font: { size: 10.5 } };
      if (!isBars) layout.height = root.dataset.view === "decide" ? onAnswerPage + legendLine * lines : Math.min(layout.height, wholePage);
    }
    layout.width = root.dataset.print ? width : undefined;
    layout.autosize = !root.dataset.print;
    const drawn = Plotly.react(box, data, layout, config).then(() => labels.write(box, chart.data, colour, ontoEnds));
    box.style.minHeight = "";
    return drawn;
  };

  // Run plotly.js, which the page holds compressed.
  const unpack = async () => {
    const bytes = Uint8Array.from(atob(document.getElementById("plotly").textContent), (letter) => letter.charCodeAt(0));
    const code = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    document.head.append(panel.make("script", { textContent: code }));
  };

  return { draw, isHidden, unpack };
})();
