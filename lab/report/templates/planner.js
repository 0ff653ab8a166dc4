// The planner's form, answer and picture; it stands after queue.js in one module.

const SECONDS_PER_DAY = 86400, STEPS = 24, MANY = 40, PAUSE_MS = 120;

// What is asked, and whether it can be.

const LIMITS = {
  rate: { what: "The rate", above: 0, most: 1e11, unit: "requests/s", example: 50 },
  limit_ms: { what: "The limit", above: 0, most: 1e3 * SECONDS_PER_DAY, unit: "ms", example: 250 },
  headroom: { what: "The headroom", least: 0, most: 1000, unit: "%", example: 20 },
  price: { what: "The price", least: 0, most: 1e6, unit: "per core-hour", example: 0.04, optional: true },
};

/** Read the fields of a form: numbers in `asked`, or in `wrong` which field is wrong and the sentence that says how. */
function read(fields) {
  const asked = { percentile: Number(fields.percentile) };
  for (const [name, { what, above, least, most, unit, example, optional }] of Object.entries(LIMITS)) {
    const text = fields[name].trim();
    if (!text && optional) { asked[name] = 0; continue; }
    const isNumber = /^[+-]?(\d{1,3}(,\d{3})+|\d+)?(\.\d*)?(e[+-]?\d+)?$/i.test(text) && /\d/.test(text);
    const value = isNumber ? Number(text.replaceAll(",", "")) : NaN;
    const range = above === undefined ? `at least ${least}` : `above ${above}`;
    if (!(value <= most && (above === undefined ? value >= least : value > above))) {
      const got = text ? `got ${text.slice(0, 20)}` : "got nothing";
      const must = value > most ? `at most ${most.toLocaleString("en")}` : `a number ${range}`;
      return { wrong: name, says: `${what} must be ${must}, in ${unit}, such as ${example}; ${got}.` };
    }
    asked[name] = value;
  }
  return { asked };
}

// What is answered: numbers.

/** Plan what is asked with the data of a run: workers, machines, cost; null where there is no number. */
function plan(data, service, asked) {
  const { cpus } = data, at = (slower) => queueAt(data, service, asked, slower);
  const usual = at(1), erlangs = asked.rate * service.mean_s, room = 1 + asked.headroom / 100;
  const workers = usual.fewest(erlangs * room);
  const planned = { ...asked, workers, machines: null, fits: workers !== null && workers <= cpus, isExact: usual.isExact };
  if (workers === null) return planned;
  const law = { quantile: asked.percentile / 100, dispatch: data.dispatch };
  const ends = [data.fastest, data.slowest].map((slower) => (slower === 1 ? workers : at(slower).fewest(erlangs * room * slower)));
  if (!planned.fits) planned.machines = usual.machines(erlangs * room, cpus);
  const cores = planned.fits ? workers : planned.machines && planned.machines * cpus;
  const cost = (each) => (cores && asked.price ? each : null);
  return {
    ...planned, ends, cores,
    utilisation: erlangs / workers,
    latency_s: besides(latency(service, law, workers, erlangs / workers), data),
    cost_per_hour: cost(cores * asked.price),
    cost_per_million: cost((1e6 * cores * asked.price) / (3600 * asked.rate)),
  };
}

/** The queue that is asked about; what the run knows of it beforehand is not simulated again. */
function queueAt(data, service, asked, slower = 1) {
  const isTheRuns = asked.percentile === data.asked.percentile && asked.limit_ms === data.asked.limit_ms && slower === 1;
  return question(service, {
    quantile: asked.percentile / 100,
    slo_s: asked.limit_ms / 1e3 / slower - data.beside_s,
    dispatch: data.dispatch,
    told: isTheRuns ? data.highest : [],
  });
}

/** What clients see of a latency: with what occupies no worker. */
const besides = (latency_s, data) => (latency_s === null ? null : latency_s + data.beside_s);

// What is answered: words.

const counted = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
const digits = (value) => {
  const rounded = Number(value.toPrecision(3)), places = 2 - Math.floor(Math.log10(rounded || 1));
  return rounded.toLocaleString("en", { minimumFractionDigits: Math.min(20, Math.max(0, places)), maximumFractionDigits: Math.min(20, Math.max(0, places)) });
};
const percent = (share) => (share > 0 && share < 0.001 ? "<0.1\u00a0%" : `${Math.round(1e3 * share) / 10}\u00a0%`);
const seconds = (value_s) =>
  value_s >= 0.9995 ? `${digits(value_s)}\u00a0s` : value_s >= 0.9995e-3 ? `${digits(1e3 * value_s)}\u00a0ms` : `${digits(1e6 * value_s)}\u00a0µs`;
const perSecond = (rate) => (rate < 1e5 ? `${digits(rate)}/s` : `${Math.round(rate).toLocaleString("en")}/s`);
const objective = (asked) => `p${asked.percentile} within ${seconds(asked.limit_ms / 1e3)}`;

/** The answer as one sentence, in pieces; those in lists are emphasized. */
function sentence(data, service, planned) {
  const { workers, machines, cpus = data.cpus } = planned;
  if (workers === null) return [["No number of workers"], ` keeps ${objective(planned)}: ${whyImpossible(data, service, planned)}.`];
  const room = planned.headroom ? ` and ${percent(planned.headroom / 100)} headroom` : "";
  const what = `${perSecond(planned.rate)} with ${objective(planned)}${room}`;
  if (planned.fits) return [`${what} needs `, [counted(workers, "worker")], ` (${known(data, workers)}).`];
  const fleet = machines === null
    ? `and machines like this one, with ${counted(cpus, "CPU")}, cannot do it however many there are`
    : `i.e. ${counted(machines, "machine")} like this one behind a balancer`;
  return [["Impossible on these CPUs"], `: ${what} needs `, [counted(workers, "worker")], `, ${fleet}.`];
}

function whyImpossible(data, service, { percentile, limit_ms }) {
  const limit_s = limit_ms / 1e3, alone_s = service.quantile(percentile / 100) + data.beside_s;
  if (alone_s <= limit_s * (1 + 1e-12)) return "without any wait just enough are in time, so none may ever wait";
  if (service.sorted[0] === service.sorted.at(-1)) return `one request takes ${seconds(alone_s)}`;
  return `even if none waits, p${percentile} is ${seconds(alone_s)}`;
}

/** How a number of workers is known, as notebook 09 has it. */
function known(data, workers) {
  if (workers === data.validated) return "validated: predicted, then measured here";
  return workers <= data.cpus ? "predicted for the CPUs here" : "extrapolated beyond the CPUs here";
}

function facts(data, planned) {
  if (planned.workers === null) return [];
  const { ends, cores, machines, latency_s, cost_per_hour, cost_per_million } = planned;
  const speeds = ends[0] === ends[1] ? null : ends.map((end) => (end === null ? "no number" : end.toLocaleString("en"))).join(" to ");
  const without = planned.headroom ? "at the rate without headroom" : null;
  return [
    ["workers", planned.workers.toLocaleString("en"), speeds && `${speeds} at the fastest to the slowest speed seen`],
    ["busy on average", percent(planned.utilisation), without],
    [`expected p${planned.percentile}`, latency_s === null ? "–" : seconds(latency_s), without],
    machines && ["machines like this one", machines.toLocaleString("en"), `${counted(cores, "worker")}, as each machine has a queue of its own`],
    cost_per_hour && ["cost per hour", digits(cost_per_hour), `${counted(cores, "core")}; ${digits(cost_per_million)} per million requests`],
  ].filter(Boolean);
}

function assumptions(data, service, { isExact }) {
  const queue = `random (Poisson) arrivals, a CPU for each worker, ${data.queue}, and ${seconds(service.mean_s)} of a worker for each request`;
  if (isExact) return `Assumes ${queue}. Waits are exact (M/D/c), as in notebook 09.`;
  return `Assumes ${queue}. There is no formula for the waits, as service times vary (coefficient of variation: ${digits(service.variation)}), so they are simulated. `
    + "For this run's objective, notebook 09 has done so; for another, this page does, and near a step its answer may differ from the notebook's.";
}

// The picture.

const SVG = "http://www.w3.org/2000/svg";

function add(parent, name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return parent.appendChild(element);
}

/** Draw which rate needs how many workers: `steps` are [workers, highest rate]; `planned` is the point, if any. */
function draw(figure, data, service, steps, planned, title) {
  const width = Math.max(280, figure.clientWidth), height = Math.min(340, Math.max(250, width * 0.5));
  const most = steps.at(-1)[0], isLog = most > MANY, top = Math.max(...steps.map(([, rate]) => rate));
  const least = Math.min(...steps.map(([, rate]) => rate).filter((rate) => rate > 0));
  const left = 12 + 8 * most.toLocaleString("en").length, right = width - 14, bottom = height - 40;
  const scale = (low, high, from, to) => (value) => isLog
    ? from + ((to - from) * Math.log(Math.max(value, low) / low)) / Math.log(high / low)
    : from + ((to - from) * (value - low)) / (high - low);
  const x = scale(isLog ? least / 3 : 0, top * (isLog ? 1.5 : 1.03), left, right);
  const y = scale(isLog ? 0.8 : 0, isLog ? 10 * most : 1.12 * most + 0.4, bottom, 8);
  figure.querySelector("svg")?.remove();
  const svg = add(figure, "svg", { width, height, role: "img", "aria-label": title });
  figure.prepend(svg);
  const pattern = add(add(svg, "defs", {}), "pattern", { id: "planner-hatch", width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  add(pattern, "path", { d: "M0 0V7", class: "hatch" });
  if (most > data.cpus) {
    const edge = y(isLog ? data.cpus * 1.1 : data.cpus + 0.5);
    add(svg, "rect", { x: left, y: 8, width: right - left, height: edge - 8, fill: "url(#planner-hatch)" });
    add(svg, "text", { x: right - 6, y: 22, class: "quiet", "text-anchor": "end" }, `more than the ${counted(data.cpus, "CPU")} here`);
  }
  axes(svg, { x, y, left, right, bottom, top, most, isLog, least });
  const ends = [isLog ? least / 3 : 0, top * (isLog ? 1.5 : 1)];
  const line = (...points) => `M${points.map(([rate, workers]) => `${x(rate).toFixed(1)} ${y(workers).toFixed(1)}`).join("L")}`;
  const fewest = isLog ? [0.8 / service.mean_s, Math.max(ends[1], 1 / service.mean_s)] : ends;
  add(svg, "path", { d: line(...fewest.map((rate) => [rate, rate * service.mean_s])), class: "least" });
  let before = [ends[0], steps[0][0]];
  for (const [workers, rate] of steps) {
    // all of them: stairs; a few of many: a line
    const corner = most > steps.length ? before : [before[0], workers];
    add(svg, "path", { d: line(before, corner, [rate, workers]), class: `step ${workers <= data.cpus ? "here" : "beyond"}` });
    if (workers === data.validated) add(svg, "path", { d: line(corner, [rate, workers]), class: "step validated" });
    before = [rate, workers];
  }
  const isTheRuns = planned?.percentile === data.asked.percentile && planned?.limit_ms === data.asked.limit_ms;
  if (isTheRuns && data.measured) {
    const { workers, low_rps, high_rps } = data.measured;
    add(svg, "path", { d: line([low_rps, workers], [high_rps, workers]), class: "measured" });
  }
  if (planned?.workers) point(svg, planned, { x, y, left, right, bottom });
}

function axes(svg, { x, y, left, right, bottom, top, most, isLog, least }) {
  const nice = (high, count) => {
    const rough = high / count, power = 10 ** Math.floor(Math.log10(rough));
    return [1, 2, 5, 10].map((times) => times * power).find((step) => step >= rough);
  };
  const powers = (low, high) => Array.from({ length: 20 }, (_, i) => 10 ** (i - 3)).filter((value) => value >= low && value <= high);
  const evenly = (high, step) => Array.from({ length: Math.floor(high / step + 1e-9) + 1 }, (_, i) => i * step);
  for (const value of isLog ? powers(0.8, 5 * most) : evenly(1.1 * most, Math.max(1, nice(most, 5)))) {
    add(svg, "path", { d: `M${left} ${y(value)}H${right}`, class: "grid" });
    add(svg, "text", { x: left - 6, y: y(value) + 4, class: "tick", "text-anchor": "end" }, value.toLocaleString("en"));
  }
  let free = 0;
  for (const value of isLog ? powers(least / 3, 1.5 * top) : evenly(1.02 * top, nice(top, right > 500 ? 6 : 4))) {
    const text = Number(value.toPrecision(6)).toLocaleString("en"), half = 4 * text.length;
    if (x(value) - half < free) continue;
    free = x(value) + half + 6;
    add(svg, "text", { x: Math.min(x(value), right - half), y: bottom + 17, class: "tick", "text-anchor": "middle" }, text);
  }
  add(svg, "path", { d: `M${left} ${bottom}H${right}`, class: "axis" });
  add(svg, "text", { x: right, y: bottom + 34, class: "quiet", "text-anchor": "end" }, "requests/s");
  add(svg, "text", { x: left + 6, y: 22, class: "quiet" }, "workers");
}

/** Mark what is asked: the rate, its headroom, and the workers that it needs. */
function point(svg, { rate, headroom, workers }, { x, y, left, right, bottom }) {
  const at = x(rate), end = Math.min(right, x(rate * (1 + headroom / 100))), level = y(workers);
  add(svg, "path", { d: `M${at} ${bottom}V${level}`, class: "asked" });
  add(svg, "path", { d: `M${at} ${level}H${end}`, class: "room" });
  add(svg, "circle", { cx: end, cy: level, r: 6, class: "dot" });
  const label = add(svg, "text", { x: end + 10, y: level - 10, class: "chosen" }, counted(workers, "worker"));
  if (end - left < label.getComputedTextLength() + 16) return;
  label.setAttribute("x", end - 10); // where no step is
  label.setAttribute("text-anchor", "end");
}

/** The numbers of workers to draw: past those that are needed, and past the CPUs here. */
function counts(data, needed) {
  const most = Math.max(4, 2 * data.cpus, Math.ceil(1.5 * (needed ?? 1))), few = Math.min(most, STEPS);
  return [...new Set(Array.from({ length: few }, (_, i) => Math.round(most <= STEPS ? i + 1 : most ** (i / (few - 1)))))];
}

// The whole.

/** Bring a planner's section to life; its `plan` answers in numbers what it is asked. */
export function mount(section) {
  const data = JSON.parse(section.querySelector("script").textContent), service = sample(data.service_s);
  const [form, said, list, figure, table, assumed] = ["form", ".said", "dl", "figure", "table", ".assumed"].map((one) => section.querySelector(one));
  const fields = () => Object.fromEntries(new FormData(form));
  const highest = new Map(); // of each objective: of each number of workers
  let turn = 0, drawn = null;
  section.plan = (asked) => plan(data, service, asked);

  async function update(isPatient) {
    const mine = ++turn, { asked, wrong, says } = read(fields());
    for (const name of Object.keys(LIMITS)) form.elements[name].setAttribute("aria-invalid", String(name === wrong));
    section.classList.toggle("wrong", wrong !== undefined);
    section.classList.toggle("stale", !wrong);
    if (wrong) return say(says);
    await new Promise((go) => setTimeout(go, isPatient ? PAUSE_MS : 0));
    if (mine !== turn) return;
    const planned = plan(data, service, asked), pieces = sentence(data, service, planned);
    say(...pieces);
    said.classList.toggle("no", !planned.fits);
    list.replaceChildren(...facts(data, planned).map(fact));
    assumed.textContent = assumptions(data, service, planned);
    await picture(asked, planned, pieces.flat().join(""), () => mine === turn);
  }

  const say = (...pieces) => said.replaceChildren(...pieces.map((piece) => {
    if (typeof piece === "string") return piece;
    return Object.assign(document.createElement("strong"), { textContent: piece[0] });
  }));
  const fact = ([name, value, note]) => {
    const group = document.createElement("div");
    for (const [tag, text] of [["dt", name], ["dd", value], ["dd", note]]) {
      if (text) group.append(Object.assign(document.createElement(tag), { textContent: text }));
    }
    return group;
  };

  async function picture(asked, planned, title, isWanted) {
    const queue = queueAt(data, service, asked), key = `${asked.percentile} ${asked.limit_ms}`;
    if (!highest.has(key)) highest.set(key, new Map());
    const known = highest.get(key), steps = [];
    for (const workers of queue.isPossible ? counts(data, planned.workers) : []) {
      if (!known.has(workers)) {
        known.set(workers, queue.highest(workers)); // may take a while: the page stays alive in between
        await new Promise((go) => setTimeout(go));
        if (!isWanted()) return;
      }
      steps.push([workers, (workers * known.get(workers)) / service.mean_s]);
    }
    drawn = steps.some(([, rate]) => rate > 0) ? () => draw(figure, data, service, steps, planned, title) : null;
    figure.hidden = !drawn;
    drawn?.();
    section.classList.remove("stale");
  }

  // What is asked is kept after the # of the address: #planner?rate=50&percentile=99&...
  const restore = () => {
    const [name, query] = location.hash.slice(1).split("?");
    if (name !== "planner" || !query) return false;
    for (const [key, value] of new URLSearchParams(query)) if (key in form.elements) form.elements[key].value = value;
    return true;
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    history.replaceState(null, "", `#planner?${new URLSearchParams(fields())}`);
    update(true);
  });
  form.addEventListener("reset", () => setTimeout(() => {
    history.replaceState(null, "", "#planner");
    update(false);
  }));
  addEventListener("hashchange", () => { if (restore()) update(false); });
  new ResizeObserver(() => drawn?.()).observe(figure);
  form.hidden = list.hidden = false;
  table.hidden = true;
  if (restore()) section.scrollIntoView();
  return update(false);
}
