"use strict";
// Draws charts in the reader's scheme and width, those in sight alone.
const drawing = (() => {
  const root = document.documentElement;
  // Without the mode bar there is neither its link to Plotly's site nor its button that shares a chart.
  const config = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false, showTips: false };
  const narrow = 480;
  const tooNarrowForNames = 700;
  const printed = 660; // pixels of A4 between its margins

  const onOnePage = 210; // pixels of a chart that is printed under the answer, less its legend
  const wholePage = 880; // pixels of a chart that shares a page of A4 with nothing but its section's head
  const legendLine = 20; // pixels
  const usualLines = 3; // of a legend, for which a chart's height has room

  const colours = () => {
    const style = getComputedStyle(root);
    return (name) => style.getPropertyValue("--" + name).trim();
  };

  const themedTrace = (trace, colour) => {
    const role = trace.meta && trace.meta.colour;
    if (!role) return trace;
    const found = colour(role);
    const themed = { ...trace };
    themed.marker = { ...trace.marker, color: found };
    if (trace.type !== "bar") themed.line = { ...trace.line, color: found };
    for (const key of ["error_x", "error_y"]) {
      if (trace[key]) themed[key] = { ...trace[key], color: trace.type === "bar" ? colour("ink") : found };
    }
    if ((trace.mode || "").includes("text")) themed.textfont = { ...trace.textfont, color: colour("ink") };
    return themed;
  };

  // On a narrow plot the names of points lie on each other; what the legend and a touch say is enough.
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

  const isHidden = (box) => box.closest("[hidden]") !== null || box.offsetParent === null;

  // Lines that the names under a plot take: as many in each as the longest of them leaves room for.
  const legendLines = (names, width, letter) => {
    const longest = Math.max(0, ...names.map((name) => name.length));
    const inLine = Math.max(1, Math.floor(width / (longest * letter + 45)));
    return Math.ceil(names.length / inLine);
  };

  // `laid` is {data, layout}; a chart that nobody sees is left for when it is seen.
  const draw = (box, laid, height) => {
    const colour = colours();
    const width = root.dataset.print ? printed : box.clientWidth;
    const names = laid.data.filter((trace) => trace.showlegend !== false).map((trace) => trace.name || "");
    const shown = names.length;
    const lines = legendLines(names, width, root.dataset.print ? 6.2 : 7.5);
    const layout = themedLayout(laid.layout, colour, width);
    // Under a narrow plot every name of the legend takes a line of its own, which must not eat the plot.
    if (width < narrow && shown > 1) layout.height = height + 14 * shown;
    else if (lines > usualLines) layout.height = height + legendLine * (lines - usualLines);
    if (root.dataset.print) {
      layout.legend = { ...layout.legend, font: { size: 10.5 } };
      layout.height = root.dataset.view === "decide" ? onOnePage + legendLine * lines : Math.min(layout.height, wholePage);
    }
    layout.width = root.dataset.print ? printed : undefined;
    layout.autosize = !root.dataset.print;
    const data = laid.data.map((trace) => themedTrace(width < tooNarrowForNames ? fewerNames(trace) : trace, colour));
    Plotly.react(box, data, layout, config);
    box.style.minHeight = "";
  };

  return { draw, isHidden };
})();
