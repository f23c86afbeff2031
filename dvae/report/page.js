"use strict";

// Charts: what each is lies beside it as JSON.
const plots = [...document.querySelectorAll(".plot")];
const byTouch = matchMedia("(pointer: coarse)").matches;
for (const plot of plots) {
  const figure = JSON.parse(plot.firstElementChild.textContent);
  plot.replaceChildren();
  // A finger on a chart scrolls the page.
  if (byTouch) figure.layout.dragmode = false;
  Plotly.newPlot(plot, figure.data, figure.layout, {
    responsive: true,
    displaylogo: false,
    // Plotly's own choice of buttons has one that sends the data away.
    showSendToCloud: false,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
  });
}
// On paper, which has another width than the window, charts are scaled as pictures are.
addEventListener("beforeprint", () => {
  for (const plot of plots) {
    const { width, height } = plot.getBoundingClientRect();
    plot.style.setProperty("--ratio", `${width} / ${height}`);
    for (const drawing of plot.querySelectorAll(".main-svg")) drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
  }
});
addEventListener("afterprint", () => {
  for (const drawing of document.querySelectorAll(".plot .main-svg")) drawing.removeAttribute("viewBox");
});

// Tables: a click on a column's name sorts by it, another one the other way round; what has no value comes last.
function key(row, column) {
  const cell = row.cells[column];
  return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
}

function compare(first, second) {
  const last = (value) => (value === "" ? 2 : typeof value === "string" ? 1 : 0);
  if (last(first) || last(second)) {
    return { order: last(first) - last(second), tie: String(first).localeCompare(String(second), undefined, { numeric: true }) };
  }
  return { order: 0, tie: first - second };
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const body = head.closest("table").tBodies[0];
    const descending = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const sorted = [...body.rows].sort((one, two) => {
      const { order, tie } = compare(key(one, head.cellIndex), key(two, head.cellIndex));
      return order || (descending ? -tie : tie);
    });
    body.append(...sorted);
  });
}
