// What the playground shows live: numbers beside what theory predicts, two charts of the last minute, and who does the work.
//
// `state` is {running, said, bad, tiles: [{name, value, theory, bad}], workers: [{name, about, share, text}], fair,
// charts: [{title, alt, log, now, lines: [{name, points: [[t, y]]}], events: [[t, text]]}]}; all text is ready.

const SHOWN_S = 60;
const BEAT_MS = 2000; // how often the kernel is told that somebody watches
const SILENT_MS = 5000; // while it runs, news comes four times a second: after so long, the kernel may be gone
const SIZE = { height: 190, left: 54, right: 76, top: 26, bottom: 24 };

function html(parent, tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return parent.appendChild(made);
}

function svg(parent, tag, attributes = {}, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text) made.textContent = text;
  return parent.appendChild(made);
}

function inUnits(value, log) { // a tick: milliseconds where it is a time
  if (!log) return String(+value.toPrecision(6));
  return value >= 1 ? `${+value.toPrecision(3)} s` : `${+(1000 * value).toPrecision(3)} ms`;
}

function ticks(low, high, log) {
  if (log) {
    const all = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1)
      for (const step of high / low > 30 ? [1] : [1, 2, 5]) all.push(step * 10 ** power);
    return all.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
  }
  const rough = high / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
  return Array.from({ length: Math.floor(high / step) + 1 }, (_, i) => i * step);
}

function drawChart(parent, chart) { // as wide as there is room: letters keep their size
  const { height, left, right, top, bottom } = SIZE, width = Math.max(240, parent.clientWidth);
  const picture = svg(parent, "svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": chart.alt });
  svg(picture, "text", { x: 0, y: 13, class: "title" }, chart.title);
  const values = chart.lines.flatMap(({ points }) => points.map(([, y]) => y)).filter((y) => y !== null);
  const foot = height - bottom, end = width - right;
  svg(picture, "path", { d: `M${left} ${foot}H${end}`, class: "axis" });
  svg(picture, "text", { x: left, y: height - 6, class: "tick" }, `${SHOWN_S} s ago`);
  svg(picture, "text", { x: end, y: height - 6, class: "tick", "text-anchor": "end" }, "now");
  if (!values.length) return;
  const low = chart.log ? Math.min(...values) / 1.5 : 0, high = Math.max(...values, chart.log ? 0 : 1) * (chart.log ? 1.5 : 1.12);
  const part = chart.log ? (y) => Math.log(y / low) / Math.log(high / low) : (y) => y / high;
  const at = (y) => foot - part(y) * (foot - top), now = chart.now;
  const across = (t) => left + (1 + (t - now) / SHOWN_S) * (end - left);
  for (const tick of ticks(low, high, chart.log)) {
    svg(picture, "path", { d: `M${left} ${at(tick)}H${end}`, class: "grid" });
    svg(picture, "text", { x: left - 6, y: at(tick) + 4, class: "tick", "text-anchor": "end" }, inUnits(tick, chart.log));
  }
  let free = [0, 0]; // where the two rows of their names end
  for (const [t, text] of chart.events) {
    const x = across(t), long = 5 + 6 * text.length, from = x + long > end ? x - long : x + 3;
    const row = free.findIndex((taken) => taken <= from);
    svg(picture, "path", { d: `M${x} ${top - 4}V${foot}`, class: "event" });
    if (row < 0) continue;
    svg(picture, "text", { x: from, y: top + 4 + 12 * row, class: "event" }, text);
    free[row] = from + long;
  }
  const labels = [];
  for (const { name, points } of chart.lines) {
    let d = "", pen = "M";
    for (const [t, y] of points) {
      if (y === null) pen = "M";
      else (d += `${pen}${across(t).toFixed(1)} ${at(y).toFixed(1)}`), (pen = "L");
    }
    svg(picture, "path", { d, class: `line ${name}` });
    const last = points.at(-1)?.[1] ?? null;
    if (last !== null) labels.push({ name, y: at(last) });
  }
  labels.sort((a, b) => a.y - b.y);
  labels.forEach((label, i) => i && (label.y = Math.max(label.y, labels[i - 1].y + 14)));
  const over = Math.max(0, (labels.at(-1)?.y ?? 0) - foot);
  for (const { name, y } of labels) svg(picture, "text", { x: end + 5, y: y - over + 4, class: `name ${name}` }, name);
}

function drawTiles(parent, tiles) {
  parent.replaceChildren();
  for (const { name, value, theory, bad } of tiles) {
    const tile = html(parent, "div", bad ? "tile bad" : "tile");
    html(tile, "dt", "", name);
    html(tile, "dd", "value", value);
    html(tile, "dd", "theory", theory);
  }
}

function drawWorkers(parent, workers, fair) {
  parent.replaceChildren();
  workers.forEach(({ name, about, share, text }) => {
    const row = html(parent, "li");
    html(row, "span", "name", name);
    html(row, "span", "about", about);
    const bar = html(row, "span", "bar");
    html(bar, "span", "filled").style.width = `${100 * share}%`;
    if (fair) html(bar, "span", "fair").style.left = `${100 * fair}%`;
    html(row, "span", "share", text);
  });
}

function render({ model, el }) {
  const root = html(el, "section", "playground");
  root.setAttribute("aria-label", "Live numbers");
  const said = html(root, "p", "said");
  said.setAttribute("role", "status");
  const tiles = html(root, "dl", "tiles"), charts = html(root, "div", "charts");
  const who = html(root, "div", "who");
  html(who, "p", "heading", "Who answers");
  const workers = html(who, "ul", "workers");

  let newsMs = Date.now();
  function say() {
    const state = model.get("state"), silent = state.running && Date.now() - newsMs > SILENT_MS;
    const since = `No news since ${new Date(newsMs).toLocaleTimeString()}: is the kernel alive?`;
    const text = silent ? `${since} If it was restarted, run all cells again.` : state.said;
    if (said.textContent !== text) said.textContent = text;
    said.classList.toggle("bad", state.bad || silent);
    root.classList.toggle("running", state.running && !silent);
  }

  function draw() {
    const state = model.get("state"), sliders = el.closest(".jp-OutputArea-output")?.querySelectorAll(".noUi-handle");
    for (const slider of sliders ?? []) slider.setAttribute("aria-label", "requests per second"); // it has no name of its own
    newsMs = Date.now();
    say();
    root.classList.toggle("fresh", !state.workers.length);
    root.dataset.at = state.at;
    drawTiles(tiles, state.tiles);
    drawWorkers(workers, state.workers, state.fair);
    drawCharts();
  }

  function drawCharts() {
    charts.replaceChildren();
    const drawn = model.get("state").charts, places = drawn.map(() => html(charts, "div"));
    drawn.forEach((chart, i) => drawChart(places[i], chart));
  }

  function tell(message) { // where the notebook was closed, nobody hears it: the kernel misses the beats
    try { model.send(message); } catch { clearInterval(beating); }
  }

  let leaves = false; // a page that is closed is hidden, too, but does not come back
  const beat = () => tell({ hidden: document.hidden && !leaves });
  const beating = setInterval(beat, BEAT_MS), listening = setInterval(say, 1000);
  const turned = ({ type }) => { leaves = type === "pagehide"; beat(); };
  document.addEventListener("visibilitychange", beat);
  for (const type of ["pagehide", "pageshow"]) window.addEventListener(type, turned);
  beat();
  draw();
  const sizes = new ResizeObserver(drawCharts);
  sizes.observe(charts);
  model.on("change:state", draw);
  return () => {
    for (const timer of [beating, listening]) clearInterval(timer);
    document.removeEventListener("visibilitychange", beat);
    for (const type of ["pagehide", "pageshow"]) window.removeEventListener(type, turned);
    model.off("change:state", draw);
    sizes.disconnect();
    tell({ closed: true });
  };
}

export default { render };
