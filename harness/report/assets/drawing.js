"use strict";
// Draws the visible charts in the reader's colour scheme and width.
const drawing = (() => {
  const root = document.documentElement;
  // Without the mode bar there is no link to Plotly's site and no button to upload a chart.
  const config = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false, showTips: false };
  const narrow = 480;
  const tooNarrowForNames = 700;
  const printed = 660; // pixels: width of A4 between its margins

  const onAnswerPage = 210; // pixels: height of the chart printed below the answer, without its legend
  const wholePage = 880; // pixels: height of a chart that fills a page of A4 below its section's heading
  const legendLine = 20; // pixels
  const usualLines = 3; // lines of legend that a chart's height includes

  const colours = () => {
    const style = getComputedStyle(root);
    return (name) => style.getPropertyValue("--" + name).trim();
  };

  const themedTrace = (trace, colour) => {
    const role = trace.meta && trace.meta.colour;
    if (!role) return trace;
    const traceColour = colour(role);
    const themed = { ...trace };
    themed.marker = { ...trace.marker, color: traceColour };
    if (trace.type !== "bar") themed.line = { ...trace.line, color: traceColour };
    for (const key of ["error_x", "error_y"]) {
      if (trace[key]) themed[key] = { ...trace[key], color: trace.type === "bar" ? colour("ink") : traceColour };
    }
    if ((trace.mode || "").includes("text")) themed.textfont = { ...trace.textfont, color: colour("ink") };
    return themed;
  };

  // On a narrow plot the labels of points would overlap; the legend and tooltips remain.
  const fewerNames = (trace) => trace.mode === "markers+text" ? { ...trace, mode: "markers" } : trace;
  const fewerTicks = (axis) => {
    const most = 4;
    if (!axis.tickvals || axis.tickvals.length <= most) return axis;
    const kept = (_, place) => place % 2 === 0;
    return { ...axis, tickvals: axis.tickvals.filter(kept), ticktext: axis.ticktext.filter(kept) };
  };

  const themedLayout = (layout, colour, width) => {
    const themed = { ...layout, font: { ...layout.font, color: colour("ink") } };
    themed.hoverlabel = { ...layout.hoverlabel, bgcolor: colour("panel"), bordercolor: colour("line"), font: { ...layout.hoverlabel.font, color: colour("ink") } };
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis/.test(key)) themed[key] = { ...layout[key], gridcolor: colour("grid"), linecolor: colour("line") };
    }
    if (width < narrow) {
      themed.font.size = 12;
      themed.xaxis = fewerTicks(themed.xaxis);
    }
    return themed;
  };

  const isHidden = (box) => box.closest("[hidden], details:not([open])") !== null || box.offsetParent === null;

  // Number of lines of a legend, in which the longest name decides how many fit in one line.
  const legendLines = (names, width, letter) => {
    const longest = Math.max(0, ...names.map((name) => name.length));
    const inLine = Math.max(1, Math.floor(width / (longest * letter + 45)));
    return Math.ceil(names.length / inLine);
  };

  // `chart` is {data, layout}; `height` is in pixels, for a legend of the usual number of lines.
  const draw = (box, chart, height) => {
    const colour = colours();
    const width = root.dataset.print ? printed : box.clientWidth;
    const names = chart.data.filter((trace) => trace.showlegend !== false).map((trace) => trace.name || "");
    const shown = names.length;
    const lines = legendLines(names, width, root.dataset.print ? 6.2 : 7.5);
    const layout = themedLayout(chart.layout, colour, width);
    // Below a narrow plot each name of the legend has a line of its own, which adds to the height.
    if (width < narrow && shown > 1) layout.height = height + 14 * shown;
    else if (lines > usualLines) layout.height = height + legendLine * (lines - usualLines);
    if (root.dataset.print) {
      layout.legend = { ...layout.legend, font: { size: 10.5 } };
      layout.height = root.dataset.view === "decide" ? onAnswerPage + legendLine * lines : Math.min(layout.height, wholePage);
    }
    layout.width = root.dataset.print ? printed : undefined;
    layout.autosize = !root.dataset.print;
    const data = chart.data.map((trace) => themedTrace(width < tooNarrowForNames ? fewerNames(trace) : trace, colour));
    Plotly.react(box, data, layout, config);
    box.style.minHeight = "";
  };

  return { draw, isHidden };
})();
