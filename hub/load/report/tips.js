// A line at the moment under the pointer, in every chart, and its figures, which are read from the chart's table.
"use strict";
{
  const plots = [...document.querySelectorAll(".plot")].map((plot) => {
    const table = plot.closest("figure").querySelector("table");
    return {
      plot,
      names: [...table.tHead.rows[0].cells].slice(1).map((cell) => cell.textContent),
      rows: [...table.tBodies[0].rows],
    };
  });

  const nearest = (rows, x) => {
    const distance = (row) => Math.abs(row.dataset.x - x);
    return rows.reduce((best, row, index) => (distance(row) < distance(rows[best]) ? index : best), 0);
  };

  const element = (plot, name) => {
    const made = document.createElement("div");
    made.className = name;
    plot.append(made);
    return made;
  };

  const hide = () => {
    for (const old of document.querySelectorAll(".cursor, .tip")) old.remove();
  };

  const show = (chart, index) => {
    hide();
    chart.index = index;
    const x = chart.rows[index].dataset.x;
    for (const { plot } of plots) element(plot, "cursor").style.left = `${x * 100}%`;
    const tip = element(chart.plot, "tip");
    tip.setAttribute("role", "status");
    const [when, ...values] = [...chart.rows[index].cells].map((cell) => cell.textContent);
    tip.append(Object.assign(document.createElement("b"), { textContent: when }));
    chart.names.forEach((name, at) => {
      tip.append(Object.assign(document.createElement("div"), { textContent: `${name} ${values[at]}` }));
    });
    tip.style[x < 0.5 ? "left" : "right"] = `calc(${(x < 0.5 ? x : 1 - x) * 100}% + 0.5rem)`;
  };

  for (const chart of plots) {
    const { plot, rows } = chart;
    plot.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      show(chart, nearest(rows, (event.clientX - box.left) / box.width));
    });
    plot.addEventListener("pointerleave", hide);
    plot.addEventListener("blur", hide);
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const index = chart.index === undefined ? 0 : chart.index + step;
      show(chart, Math.min(rows.length - 1, Math.max(0, index)));
    });
  }
}
