"use strict";
// Writes names into a chart beside what they name: the ends of lines in the right margin, points next to their marks.
const labels = (() => {
  const is = (value) => value !== null && value !== undefined;
  const size = 12; // pixels, as .labels of page.css
  const mark = 16; // pixels for the coloured mark before a name
  const gap = 4;
  const mostOfWidth = 0.34; // of the chart, for names in the right margin

  const unescaped = (text) => text.replace(/<br>/g, ", ").replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
  const isNamed = (trace) => trace.meta && trace.meta.end_label && trace.x.some((value, index) => is(value) && is(trace.y[index]));

  // Pixels that the names at the ends of lines need in the right margin.
  const marginOf = (data, width) => {
    const longest = Math.max(0, ...data.filter(isNamed).map((trace) => unescaped(trace.name).length));
    return longest ? Math.min(Math.ceil(longest * size * 0.58) + mark + 2 * gap, Math.round(width * mostOfWidth)) : 0;
  };

  const span = (box, text, colour) => {
    const dot = colour ? [panel.make("b", { textContent: "●" })] : [];
    const element = panel.make("span", {}, ...dot, text);
    if (colour) dot[0].style.color = colour;
    box.append(element);
    return element;
  };

  // Spread labels so that none overlaps another: [{top, height}], changed in place, kept between 0 and `bottom`.
  const spread = (placed, bottom) => {
    placed.sort((one, other) => one.top - other.top);
    let free = 0;
    for (const label of placed) {
      label.top = Math.max(label.top, free);
      free = label.top + label.height + 1;
    }
    let limit = bottom;
    for (const label of [...placed].reverse()) {
      label.top = Math.min(label.top, limit - label.height);
      limit = label.top - 1;
    }
  };

  const namesAtEnds = (box, chart, data, colour) => {
    const { xaxis, yaxis, width } = chart._fullLayout;
    const left = xaxis._offset + xaxis._length + gap;
    const placed = data.filter(isNamed).map((trace) => {
      const last = trace.y.findLastIndex((value, index) => is(value) && is(trace.x[index]));
      const element = span(box, unescaped(trace.name), colour(trace.meta.colour));
      element.style.left = left + "px";
      element.style.maxWidth = width - left + "px";
      const tall = element.offsetHeight;
      return { element, height: tall, top: yaxis._offset + yaxis.d2p(trace.y[last]) - tall / 2 };
    });
    spread(placed, yaxis._offset + yaxis._length + gap);
    for (const { element, top } of placed) element.style.top = top + "px";
  };

  const overlaps = (one, other) => one.left < other.right && other.left < one.right && one.top < other.bottom && other.top < one.bottom;

  // Boxes of all marks, error bars and lines of the plot.
  const obstacles = (chart, data) => {
    const { xaxis, yaxis } = chart._fullLayout;
    const boxes = [];
    const add = (left, top, right, bottom) => boxes.push({ left, top, right, bottom });
    for (const trace of data) {
      if (trace.xaxis === "x2") { // a line across
        const y = yaxis._offset + yaxis.d2p(trace.y[0]);
        add(0, y - 1, Infinity, y + 1);
        continue;
      }
      trace.x.forEach((x, index) => {
        if (!is(x) || !is(trace.y[index])) return;
        const [px, py] = [xaxis._offset + xaxis.d2p(x), yaxis._offset + yaxis.d2p(trace.y[index])];
        const radius = ((trace.marker || {}).size || 4) / 2;
        add(px - radius, py - radius, px + radius, py + radius);
        const bars = trace.error_y;
        if (bars && bars.visible !== false && bars.array) {
          const end = (value) => yaxis._offset + yaxis.d2p(value);
          add(px - 3, end(trace.y[index] + (bars.array[index] || 0)), px + 3, end(trace.y[index] - (bars.arrayminus[index] || 0)));
        }
        if (trace.line && trace.line.shape === "hv" && is(trace.x[index + 1])) {
          const [nextX, nextY] = [xaxis._offset + xaxis.d2p(trace.x[index + 1]), yaxis._offset + yaxis.d2p(trace.y[index + 1])];
          add(px, py - 1, nextX, py + 1);
          add(nextX - 1, Math.min(py, nextY), nextX + 1, Math.max(py, nextY));
        }
      });
    }
    return boxes;
  };

  // Names of points, each at the first free place around its mark; a name without one is left to the tooltip.
  const namesOfPoints = (box, chart, data) => {
    const { xaxis, yaxis, width } = chart._fullLayout;
    const taken = obstacles(chart, data);
    for (const trace of data.filter((each) => each.meta && each.meta.point_labels)) {
      const radius = trace.marker.size / 2 + 2;
      trace.meta.point_labels.forEach((text, index) => {
        if (!text) return;
        const element = span(box, text);
        const [w, h] = [element.offsetWidth, element.offsetHeight];
        const [px, py] = [xaxis._offset + xaxis.d2p(trace.x[index]), yaxis._offset + yaxis.d2p(trace.y[index])];
        const places = [];
        for (const away of [0, 8]) {
          const [dx, dy] = [radius + away, radius + away];
          places.push([px - w - dx, py - h / 2], [px + dx, py - h / 2], [px - w - dx, py - h - dy], [px + dx, py - h - dy],
            [px - w / 2, py - h - dy], [px - w - dx, py + dy], [px + dx, py + dy], [px - w / 2, py + dy]);
        }
        const free = places.map(([left, top]) => ({ left, top, right: left + w, bottom: top + h })).find((place) =>
          place.left >= xaxis._offset && place.right <= Math.min(width, xaxis._offset + xaxis._length) && place.top >= 0
          && place.bottom <= yaxis._offset + yaxis._length && !taken.some((other) => overlaps(place, other)));
        if (!free) { element.remove(); return; }
        element.style.left = free.left + "px";
        element.style.top = free.top + "px";
        taken.push(free);
      });
    }
  };

  // Write the names of a drawn chart; `ontoEnds` says whether there is a right margin for those of lines.
  const write = (chart, data, colour, ontoEnds) => {
    let box = chart.nextElementSibling;
    if (!box || !box.classList.contains("labels")) {
      box = panel.make("div", { className: "labels" });
      box.setAttribute("aria-hidden", "true");
      chart.after(box);
    }
    box.replaceChildren();
    box.style.left = chart.offsetLeft + "px";
    box.style.top = chart.offsetTop + "px";
    if (ontoEnds) namesAtEnds(box, chart, data, colour);
    namesOfPoints(box, chart, data);
  };

  return { write, marginOf };
})();
