"use strict";
(() => {
  const root = document.documentElement;
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const packed = document.getElementById("plotly");
  const hidden = new Map(); // chart -> numbers of traces that its legend has hidden
  const drawn = new Set();
  const touch = matchMedia("(pointer: coarse)").matches;
  let plotly = null;

  // --- Plotly, unpacked once

  async function unpack() {
    const bytes = Uint8Array.from(atob(packed.textContent), (one) => one.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    plotly = window.Plotly;
  }

  // --- colours, of the theme that is shown

  function colours() {
    const style = getComputedStyle(root);
    const read = (name) => style.getPropertyValue(name).trim();
    const palette = [0, 1, 2, 3, 4, 5, 6].map((number) => read(`--c${number}`));
    return { palette, card: read("--card"), ink: read("--ink"), soft: read("--soft"), line: read("--line"), grid: read("--grid"), bad: read("--bad") };
  }

  function painted(trace, number, chart, theme) {
    const colour = theme.palette[trace.meta.colour];
    const copy = { ...trace, visible: !(hidden.get(chart)?.has(number) ?? false) };
    if (trace.type === "heatmap") {
      copy.colorscale = [[0, mixed(theme.card, colour, trace.meta.from)], [1, colour]];
      copy.textfont = { ...trace.textfont };
      return copy;
    }
    if (trace.line) copy.line = { ...trace.line, color: colour };
    if (trace.marker) {
      copy.marker = { ...trace.marker, color: colour, line: { width: trace.mode === "markers" ? 1 : 0, color: theme.card } };
      if (trace.marker.pattern) {
        copy.marker.pattern = { ...trace.marker.pattern, fgcolor: theme.card, bgcolor: colour, fillmode: "overlay", fgopacity: 0.5, size: 7, solidity: 0.22 };
      }
      if (trace.type === "bar") copy.marker.line = { width: trace.base ? 0 : 1, color: theme.card };
    }
    if (trace.error_x) copy.error_x = { ...trace.error_x, color: theme.ink };
    if (trace.text) copy.textfont = { color: theme.ink, size: 12 };
    return copy;
  }

  function mixed(back, front, share) {
    const part = (text, at) => parseInt(text.length === 4 ? text[1 + at] + text[1 + at] : text.slice(1 + 2 * at, 3 + 2 * at), 16);
    return `rgb(${[0, 1, 2].map((at) => Math.round(part(back, at) * (1 - share) + part(front, at) * share)).join(",")})`;
  }

  // --- layout: one for all charts, over which each lays its own

  function widest(names, font) {
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = font;
    return Math.ceil(Math.max(0, ...[...new Set(names)].map((name) => pen.measureText(name).width)));
  }

  // Room for what stands at the axes is measured here: Plotly's own search for it does not always end.
  function margins(own, family, names) {
    const room = (texts) => widest(texts, `12px ${family}`);
    const { xaxis, yaxis, limit } = own;
    const rotated = xaxis?.tickangle === -90 && xaxis.showticklabels !== false;
    const left = yaxis?.labels ? room(names) + 22 : yaxis?.ticktext ? room(yaxis.ticktext) + 12 : 54;
    return {
      l: left + (yaxis?.title ? 22 : 0), r: 14, t: limit ? 26 : 10,
      b: (rotated ? room(xaxis.ticktext) + 12 : 22) + (xaxis?.title ? 24 : 0),
    };
  }

  function layout(own, theme, width, names) {
    const axis = {
      gridcolor: theme.grid, linecolor: theme.line, zerolinecolor: theme.line, tickcolor: theme.line, tickangle: 0,
      exponentformat: "e", minexponent: 5, separatethousands: true, showspikes: false, spikecolor: theme.soft, spikethickness: 1, spikedash: "solid",
      fixedrange: touch, title: { standoff: 8, font: { size: 12, color: theme.soft } }, tickfont: { size: 12, color: theme.soft },
    };
    const merged = (extra, more) => ({ ...axis, ...more, ...extra, title: { ...axis.title, ...(extra?.title ?? {}) } });
    const { xaxis, yaxis, limit, ...rest } = own;
    const across = { ...xaxis };
    if (xaxis?.ticktext && width < 14 * xaxis.ticktext.length + 160) across.showticklabels = false;
    const family = getComputedStyle(document.body).fontFamily;
    const result = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: theme.card, font: { family, size: 12, color: theme.ink },
      margin: margins({ ...own, xaxis: across }, family, names), showlegend: false, hovermode: "closest", dragmode: touch ? false : "zoom", bargap: 0.32,
      hoverlabel: { bgcolor: theme.card, bordercolor: theme.line, font: { color: theme.ink, size: 12 } },
      annotations: [], shapes: [], ...rest, xaxis: merged(across, { nticks: Math.max(5, Math.round(width / 80)) }), yaxis: merged(yaxis, {}),
    };
    if (yaxis?.labels) Object.assign(result.yaxis, { tickfont: { size: 12, color: theme.ink }, gridcolor: "rgba(0,0,0,0)", labels: undefined, ticks: "outside", ticklen: 8, tickcolor: "rgba(0,0,0,0)" });
    if (limit) {
      result.shapes.push({ type: "line", xref: "x", yref: "paper", x0: limit.at, x1: limit.at, y0: 0, y1: 1, line: { color: theme.bad, width: 2, dash: "dash" } });
      result.annotations.push({ text: limit.text, xref: "x", yref: "paper", x: limit.at, y: 1, yanchor: "bottom", xanchor: "right", showarrow: false, font: { size: 12, color: theme.bad } });
    }
    return result;
  }

  function draw(plot) {
    const name = plot.dataset.chart;
    const theme = colours();
    const data = charts[name].data.map((trace, number) => painted(trace, number, name, theme));
    const config = { displayModeBar: false, responsive: false };
    drawn.add(plot);
    const names = charts[name].data.flatMap((trace) => trace.y);
    const size = { width: plot.clientWidth, height: plot.clientHeight };
    // Anew: Plotly.react() with another size forgets the ranges of axes.
    plotly.newPlot(plot, data, { ...layout(charts[name].layout, theme, size.width, names), ...size }, config);
  }

  const plots = (within) => [...within.querySelectorAll(".plot")];
  const fit = (plot) => plotly.relayout(plot, { width: plot.clientWidth, height: plot.clientHeight });
  const redraw = () => drawn.forEach((plot) => { if (plot.clientWidth) draw(plot); });

  function show(panel) {
    if (plotly) plots(panel).forEach((plot) => { if (!drawn.has(plot) || plot.clientWidth !== plot._fullLayout?.width) draw(plot); });
  }

  // --- tabs: arrow keys, Home, End; the address names the one that is open

  const list = document.getElementById("tabs");
  const tabs = [...list.querySelectorAll("[role=tab]")];
  const panelOf = (tab) => document.getElementById(tab.getAttribute("aria-controls"));

  function open(tab, focus) {
    for (const one of tabs) {
      const chosen = one === tab;
      one.setAttribute("aria-selected", String(chosen));
      one.tabIndex = chosen ? 0 : -1;
      panelOf(one).hidden = !chosen;
    }
    if (focus) tab.focus();
    tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    show(panelOf(tab));
  }

  function begin() {
    if (tabs.length < 2) return;
    list.hidden = false;
    root.classList.add("tabbed");
    for (const tab of tabs) {
      const panel = panelOf(tab);
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", tab.id);
      panel.tabIndex = 0;
      tab.addEventListener("click", () => { open(tab, false); history.replaceState(null, "", `#${panel.id}`); });
    }
    list.addEventListener("keydown", (event) => {
      const at = tabs.indexOf(document.activeElement);
      const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
      if (at < 0 || next === undefined) return;
      event.preventDefault();
      open(tabs[(next + tabs.length) % tabs.length], true);
    });
    const asked = () => tabs.find((tab) => `#${panelOf(tab).id}` === location.hash);
    addEventListener("hashchange", () => { if (asked()) open(asked(), false); });
    open(asked() ?? tabs[0], false);
  }

  // --- legends, theme, copying

  document.addEventListener("click", (event) => {
    const key = event.target.closest(".legend button");
    if (key && plotly) {
      const { chart, traces } = key.dataset;
      const off = key.getAttribute("aria-pressed") === "true";
      const numbers = traces.split(" ").map(Number);
      if (!hidden.has(chart)) hidden.set(chart, new Set());
      numbers.forEach((number) => (off ? hidden.get(chart).add(number) : hidden.get(chart).delete(number)));
      key.setAttribute("aria-pressed", String(!off));
      plotly.restyle(`plot-${chart}`, { visible: !off }, numbers);
    }
    const copy = event.target.closest(".copy");
    if (copy) {
      navigator.clipboard.writeText(copy.closest(".card").querySelector("pre").textContent).then(
        () => { copy.textContent = "Copied"; },
        () => { getSelection().selectAllChildren(copy.closest(".card").querySelector("pre")); },
      );
    }
  });

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("theme");
  const isDark = () => (root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  function themed() {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Show the page in ${isDark() ? "light" : "dark"} colours`);
    redraw();
  }
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; themed(); });
  dark.addEventListener("change", themed);

  // --- paper: every tab, in light colours, as wide as a page

  let before = null;
  addEventListener("beforeprint", () => {
    if (before !== null) return;
    before = { theme: root.dataset.theme, closed: tabs.map((tab) => panelOf(tab)).filter((panel) => panel.hidden) };
    root.dataset.theme = "light";
    root.classList.add("printing");
    before.closed.forEach((panel) => { panel.hidden = false; });
    if (plotly) plots(document).forEach(draw);
  });
  addEventListener("afterprint", () => {
    if (before === null) return;
    root.classList.remove("printing");
    if (before.theme === undefined) delete root.dataset.theme; else root.dataset.theme = before.theme;
    before.closed.forEach((panel) => { panel.hidden = true; });
    before = null;
    redraw();
  });

  let later = 0;
  addEventListener("resize", () => { clearTimeout(later); later = setTimeout(() => drawn.forEach((plot) => { if (plot.clientWidth) fit(plot); }), 100); });

  themed();
  begin();
  if (packed) {
    unpack().then(
      () => { plots(document).forEach((plot) => { if (plot.clientWidth) draw(plot); }); root.dataset.charts = "drawn"; },
      () => {
        const word = document.getElementById("broken");
        word.textContent = "This browser cannot unpack the charts (it needs DecompressionStream, from 2023 on); their figures are in the tables.";
        word.hidden = false;
        root.dataset.charts = "broken";
      },
    );
  }
})();
