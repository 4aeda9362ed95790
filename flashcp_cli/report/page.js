"use strict";
const page = JSON.parse(document.getElementById("data").textContent);
const choice = (id) => document.getElementById(id).value;
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const views = {};

// What each plot listens to; a plot draws the rows that its signals choose.
function signals(name) {
  const cell = Number(choice("cell"));
  const groups = page.groups[cell];
  return {
    across_cp: { kind: choice("kind"), group: groups.across_cp },
    across_window: { kind: choice("kind"), group: groups.across_window },
    breakdown: { cell }, imbalance: { cell }, moved: { cell },
    shards: { pack: Number(choice("pack")), strategy: choice("strategy") },
    matrix: { pack: Number(choice("pack")), strategy: choice("strategy") },
    timeline: { pack: Number(choice("pack")), strategy: choice("strategy") },
  }[name];
}

function theme() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const fg = colour("--fg"), line = colour("--line");
  return {
    background: null, font: "system-ui, sans-serif",
    view: { stroke: null },
    axis: { labelColor: fg, titleColor: fg, domainColor: line, gridColor: line, tickColor: line,
            labelFontSize: 12, titleFontSize: 12, titleFontWeight: 400 },
    legend: { labelColor: fg, titleColor: fg, labelFontSize: 12, orient: "top", columns: 3,
              titleFontWeight: 400 },
    text: { color: fg }, rule: { color: fg },
  };
}

async function draw() {
  for (const [name, spec] of Object.entries(page.charts)) {
    const filled = { ...spec, params: spec.params.map((p) => ({ ...p, value: signals(name)[p.name] ?? p.value })) };
    views[name]?.finalize();
    views[name] = await vegaEmbed(`#${name}`, filled, {
      config: theme(), renderer: "svg", downloadFileName: `flashcp-${name}`,
      actions: { export: { svg: true, png: true }, source: false, compiled: false, editor: false },
      tooltip: { theme: dark.matches ? "dark" : "light" },
    });
  }
  document.body.dataset.drawn = "yes";
}

async function update() {
  for (const [name, { view }] of Object.entries(views)) {
    for (const [signal, value] of Object.entries(signals(name))) view.signal(signal, value);
    await view.runAsync();
  }
}

for (const select of document.querySelectorAll(".controls select")) select.addEventListener("change", update);
dark.addEventListener("change", draw);

const table = document.getElementById("rows");
table.querySelectorAll("th button").forEach((button, column) => button.addEventListener("click", () => {
  const heading = button.parentElement;
  const down = heading.getAttribute("aria-sort") === "ascending";
  table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = (row) => row.cells[column].dataset.value;
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)], [m, n] = [Number(x), Number(y)];
    return x !== "" && y !== "" && !Number.isNaN(m) && !Number.isNaN(n) ? m - n : x.localeCompare(y);
  };
  const body = table.tBodies[0];
  [...body.rows].sort((a, b) => (down ? -1 : 1) * compare(a, b)).forEach((row) => body.append(row));
}));

draw();
