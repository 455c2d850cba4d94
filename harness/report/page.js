"use strict";
// Draws the figures in the reader's scheme, sorts the table, hands out the CSV. Nothing here reads a text as HTML.
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const root = document.documentElement;
  const figures = read("figures");
  // Without the mode bar there is neither its link to Plotly's site nor its button that shares a chart.
  const config = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false, showTips: false };
  const narrow = 480;
  const printed = 660; // pixels of A4 between its margins

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

  const draw = (item) => {
    const box = document.getElementById(item.key);
    if (!box || box.closest("[hidden]")) return;
    const colour = colours();
    const width = root.dataset.print ? printed : box.clientWidth;
    const shown = item.figure.data.filter((trace) => trace.showlegend !== false).length;
    const layout = themedLayout(item.figure.layout, colour, width);
    // Under a narrow plot every name of the legend takes a line of its own, which must not eat the plot.
    if (width < narrow && shown > 1) layout.height = item.figure.layout.height + 14 * shown;
    layout.width = root.dataset.print ? printed : undefined;
    layout.autosize = !root.dataset.print;
    const data = item.figure.data.map((trace) => themedTrace(width < narrow ? fewerNames(trace) : trace, colour));
    Plotly.react(box, data, layout, config);
    box.style.minHeight = "";
  };
  const drawAll = () => figures.forEach(draw);

  const choice = document.getElementById("map-group");
  if (choice) {
    choice.addEventListener("change", () => {
      for (const group of document.querySelectorAll(".map-group")) group.hidden = group.dataset.group !== choice.value;
      drawAll();
    });
  }

  const table = document.getElementById("cell-table");
  if (table) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        const isNumber = head.classList.contains("num");
        const value = (row) => {
          const square = row.cells[column];
          if (isNumber) return square.dataset.sort === undefined ? null : Number(square.dataset.sort);
          return square.firstElementChild.textContent || null;
        };
        const order = (one, other) => {
          const [a, b] = [value(one), value(other)];
          if (a === null || b === null) return (a === null) - (b === null); // no figure: last, whichever way
          return way * (isNumber ? a - b : a.localeCompare(b, "en", { numeric: true }));
        };
        body.append(...[...body.rows].sort(order));
        for (const other of heads) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", way === 1 ? "ascending" : "descending");
      });
    });

    const said = document.getElementById("csv-said");
    const text = read("csv");
    const copyByHand = () => {
      const area = document.createElement("textarea");
      area.value = text;
      area.style.position = "fixed";
      area.style.opacity = "0";
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    };
    document.getElementById("copy-csv").addEventListener("click", async () => {
      let done = true;
      try {
        await navigator.clipboard.writeText(text);
      } catch {
        done = copyByHand();
      }
      said.textContent = done ? "Copied." : "The browser refused; use the download.";
    });
    document.getElementById("download-csv").addEventListener("click", () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
      link.download = "cells.csv";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      said.textContent = "Saved.";
    });
  }
  if (figures.length) {
    drawAll();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
    addEventListener("beforeprint", () => { root.dataset.print = "yes"; drawAll(); });
    addEventListener("afterprint", () => { delete root.dataset.print; drawAll(); });
    let before = innerWidth;
    let waiting = 0;
    addEventListener("resize", () => {
      if (innerWidth === before) return;
      before = innerWidth;
      clearTimeout(waiting);
      waiting = setTimeout(drawAll, 150);
    });
  }

  root.dataset.ready = "yes";
})();
