// Requests as dots that arrive, wait, are served and leave: scenes side by side, under one clock.
//
// A scene is {title, workers, requests: [{due, start, end, worker}]}, in seconds, workers counted from 0;
// start is null while a request waits, end if it never came. A request waits at its worker; in a queue for
// all while it has none, or if the scene says {queue: "shared"}. Requests are in the order in which they are due.
// A live scene also says {now, busy, more}: workers busy with what it does not list, and how many more wait.

const PLAYED_S = 12; // how long a whole scene is played
const EASED_S = 0.05; // how long a dot takes to most of its way
const AHEAD_S = 1.2; // how long before it is due a request comes into sight, as played
const STILL_S = 0.5; // how long each picture stands where motion is to be reduced
const STEPS = 240; // of the slider
const BEHIND_S = 0.4; // of what is live, behind what is known, for evenness
const R = 4.5; // of a dot, in pixels
const BOX = { width: 90, height: 34 };
const CHART = 84; // height of the latencies

const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

function html(parent, tag, properties = {}) {
  return parent.appendChild(Object.assign(document.createElement(tag), properties));
}

function svg(parent, tag, attributes = {}, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return parent.appendChild(made);
}

function seconds(value) {
  const ms = value * 1000;
  return value >= 1 ? `${value.toFixed(value < 10 ? 2 : 1)} s` : `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
}

function placeOf(request, t) {
  if (t < request.due) return "coming";
  if (request.start == null || t < request.start) return "waiting";
  return request.end == null || t < request.end ? "working" : "done";
}

const most = (scenes, of) => scenes.flatMap(({ requests }) => requests).reduce((m, one) => Math.max(m, of(one)), 0);
const lastEvent = (scenes) => most(scenes, ({ due, start, end }) => Math.max(due, start ?? 0, end ?? 0));
// Which worker has a request is told when it ends: live, all is known as long ago as a loop takes.
const known = (scenes) => Math.max(0, ...scenes.map(({ now }) => now)) - most(scenes, ({ start, end }) => end - start);

function scaled(longest) { // a round number of round steps, at most six
  const power = 10 ** Math.floor(Math.log10(longest));
  const step = [0.2, 0.5, 1].map((one) => one * power).find((one) => longest / one <= 6) ?? 2 * power;
  return { step, steps: Math.max(1, Math.ceil(longest / step - 1e-9)) };
}

class Stage { // one scene
  constructor(parent) {
    this.root = html(parent, "div", { className: "scene", role: "group" });
    this.title = html(this.root, "p", { className: "title" });
    const said = html(this.root, "p", { className: "said", ariaLive: "off" });
    [this.waiting, this.done] = [html(said, "b"), html(said, "b")];
    this.waiting.after(" waiting");
    this.done.after(" done");
    this.picture = svg(this.root, "svg", { role: "img" });
    this.ground = svg(this.picture, "g");
    this.top = svg(this.picture, "g");
    this.dots = new Map(); // by due time, so that a dot lives on when its scene is replaced
  }

  show(scene, scale, aheadS) {
    Object.assign(this, { scene, scale, longest: scale.step * scale.steps, aheadS, shared: scene.queue === "shared" });
    this.title.textContent = scene.title;
    this.root.ariaLabel = scene.title;
    this.picture.ariaLabel = `${scene.title}: requests are dots that wait, are in a worker, or lie below by latency`;
    const dots = new Map();
    this.inOrder = scene.requests.map((request) => {
      let key = request.due;
      while (dots.has(key)) key += 1e-9;
      const dot = this.dots.get(key) ?? { circle: svg(this.top, "circle", { r: R }) };
      dots.set(key, dot);
      return Object.assign(dot, { request });
    });
    for (const [key, dot] of this.dots) if (!dots.has(key)) dot.circle.remove();
    this.dots = dots;
    this.setUp();
  }

  setUp() { // what does not move
    const width = Math.max(240, Math.round(this.root.clientWidth || 320)), { workers, queue } = this.scene;
    if (this.drawn === (this.drawn = [width, workers, queue, this.longest].join())) return;
    this.ground.replaceChildren();
    const lane = Math.min(46, Math.max(18, 250 / workers)), high = Math.min(BOX.height, lane - 4);
    const floor = lane * workers + CHART + 12, middle = (lane * workers) / 2;
    const box = width - BOX.width - 1, gate = 0.2 * width;
    const lanes = Array.from({ length: workers }, (_, i) => (i + 0.5) * lane);
    const head = this.shared ? box - 36 : box - 6, tail = this.shared ? gate : gate + 24;
    Object.assign(this, { width, lanes, floor, box, gate, middle, head, tail });
    this.at = (latency) => R + (latency / this.longest) * (width - 2 * R);
    this.picture.setAttribute("viewBox", `0 0 ${width} ${floor + 22}`);
    const line = (d) => svg(this.ground, "path", { d, class: "path" });
    const queues = { x: tail, width: head - tail, height: 16, rx: 8, class: "queue" };
    const curve = (x, y, to, end) => line(`M${x} ${y}C${(x + to) / 2} ${y} ${(x + to) / 2} ${end} ${to} ${end}`);
    line(`M0 ${middle}H${gate}`);
    for (const y of lanes) {
      if (!this.shared) curve(gate, middle, tail, y);
      curve(head, this.shared ? middle : y, box, y);
    }
    for (const y of this.shared ? [middle] : lanes) svg(this.ground, "rect", { ...queues, y: y - 8 });
    this.boxes = lanes.map((y, i) => {
      const group = svg(this.ground, "g", { style: `--worker: var(--replay-w${(i % 6) + 1})` });
      const at = { x: box, y: y - high / 2, width: BOX.width, height: high, rx: 5 };
      const [filled, frame] = ["filled", "idle"].map((look) => svg(group, "rect", { ...at, class: look }));
      return { filled, frame, name: svg(group, "text", { x: box + 25, y: y + 4 }) };
    });
    svg(this.ground, "path", { d: `M0 ${floor}H${width}`, class: "axis" });
    for (let i = 0; i <= this.scale.steps; i += 1) {
      const anchor = i === 0 ? "start" : i === this.scale.steps ? "end" : "middle", value = i * this.scale.step;
      const label = i === this.scale.steps - 1 && i > 3 ? "" : i ? seconds(value) : "0"; // room for the last
      svg(this.ground, "text", { x: this.at(value), y: floor + 15, "text-anchor": anchor }, label);
    }
    this.mean = svg(this.ground, "g", { class: "mean" });
    svg(this.mean, "path", { d: `M0 ${floor}V${floor - CHART + 8}` });
    svg(this.mean, "text", { y: floor - CHART + 14 });
  }

  draw(t, passedS) { // at a time; after `passedS` seconds of the reader's, or at once
    const held = { coming: [], waiting: [], working: [], done: [] };
    for (const dot of this.inOrder) held[(dot.place = placeOf(dot.request, t))].push(dot);
    for (const dot of held.coming)
      [dot.toX, dot.toY] = [Math.max(-2 * R, this.gate * (1 - (dot.request.due - t) / this.aheadS)), this.middle];
    for (const worker of [null, ...this.lanes.keys()]) {
      const own = ({ request }) => (this.shared || !(request.worker in this.lanes) ? null : request.worker);
      const queue = held.waiting.filter((dot) => own(dot) === worker);
      const step = Math.min(2 * R + 2, (this.head - this.tail - 2 * R - 6) / Math.max(1, queue.length - 1));
      const toY = this.lanes[worker] ?? this.middle;
      queue.forEach((dot, k) => Object.assign(dot, { toX: this.head - R - 3 - k * step, toY }));
    }
    this.boxes.forEach((box, i) => {
      const own = ({ request }) => request.worker === i;
      const { start, end } = held.working.find(own)?.request ?? {};
      const idle = start == null && !held.waiting.some(own) && !this.scene.busy?.includes(i);
      box.filled.setAttribute("width", end == null ? 0 : (BOX.width * (t - start)) / (end - start));
      box.frame.setAttribute("class", idle ? "idle" : "busy");
      box.name.textContent = idle ? "idle" : `worker ${i + 1}`;
    });
    for (const dot of held.working) [dot.toX, dot.toY] = [this.box + 14, this.lanes[dot.request.worker ?? 0] ?? 0];
    this.stack(held.done);
    this.say(held);
    for (const dot of this.inOrder) this.move(dot, passedS);
  }

  stack(done) { // by latency, each on top of the earlier ones
    const bins = Math.floor(this.width / (2 * R + 1));
    const column = ({ request }) => Math.min(bins - 1, Math.floor(((request.end - request.due) / this.longest) * bins));
    const final = Array(bins).fill(0), now = Array(bins).fill(0);
    for (const dot of this.inOrder) if (dot.request.end != null) final[column(dot)] += 1;
    const step = Math.min(2 * R + 0.5, (CHART - 30) / Math.max(...final, 1));
    for (const dot of done) {
      const bin = column(dot);
      dot.toX = this.at(((bin + 0.5) / bins) * this.longest);
      dot.toY = this.floor - R - step * now[bin]++;
    }
  }

  say(held) {
    for (const [place, { length }] of Object.entries(held)) this.root.dataset[place] = length;
    const waiting = held.waiting.length + (this.scene.more ?? 0);
    [this.waiting.textContent, this.done.textContent] = [waiting.toLocaleString("en"), held.done.length];
    this.mean.style.display = held.done.length ? "" : "none";
    const mean = held.done.reduce((sum, { request }) => sum + request.end - request.due, 0) / (held.done.length || 1);
    const label = this.mean.lastChild, x = this.at(mean), left = x > this.width / 2;
    this.mean.setAttribute("transform", `translate(${x} 0)`);
    label.setAttribute("x", left ? -5 : 5);
    label.setAttribute("text-anchor", left ? "end" : "start");
    label.textContent = `mean latency so far: ${seconds(mean)}`;
  }

  move(dot, passedS) {
    const part = passedS === undefined || dot.x === undefined ? 1 : 1 - Math.exp(-passedS / EASED_S);
    const x = (dot.x ?? 0) + (dot.toX - (dot.x ?? 0)) * part, y = (dot.y ?? 0) + (dot.toY - (dot.y ?? 0)) * part;
    const look = `${dot.place} of${((dot.request.worker ?? 0) % 6) + 1}`;
    if (Math.abs(x - dot.x) + Math.abs(y - dot.y) < 0.02 && dot.look === look) return;
    dot.circle.setAttribute("transform", `translate(${x} ${y})`);
    dot.circle.setAttribute("class", look);
    Object.assign(dot, { x, y, look });
  }
}

function waitingOverTime({ requests }) { // corners [t, number]: one more at each due time, one fewer at each start
  const changes = requests.flatMap(({ due, start }) => (start == null ? [[due, 1]] : [[due, 1], [start, -1]]));
  let number = 0;
  const corners = changes.sort((a, b) => a[0] - b[0]).map(([t, by]) => [t, (number += by)]);
  return corners.filter(([t], i) => t !== corners[i + 1]?.[0]);
}

function drawTimeline(parent, scenes, endS) {
  const steps = scenes.map(waitingOverTime), highest = Math.max(1, ...steps.flat().map(([, number]) => number));
  const x = (t) => ((1000 * t) / endS).toFixed(1), y = (number) => (98 - (94 * number) / highest).toFixed(1);
  parent.replaceChildren("Waiting:");
  scenes.forEach(({ title }, i) => html(parent, "span", { className: `s${i}`, textContent: title.split(":")[0] }));
  const picture = svg(parent, "svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true" });
  steps.forEach((corners, i) => {
    const d = corners.map(([t, number]) => `H${x(t)}V${y(number)}`).join("");
    svg(picture, "path", { d: `M0 98${d}H1000`, class: `over-time s${i}` });
  });
}

export function mount(element, scenes, { live = false, at = null } = {}) {
  const root = html(element, "div", { className: live ? "replay live" : "replay" });
  element.replaceChildren(root);
  const row = html(root, "div", { className: "scenes" });
  let stages = [], endS = 1, t = 0, frame = 0, timer = 0, then = 0, knownS = 0, arrivedMs = 0, playing = false;
  const bar = live ? null : html(root, "div", { className: "controls" });
  const button = bar && html(bar, "button", { type: "button", onclick: () => (playing ? pause() : play()) });
  const timeline = bar && html(bar, "div", { className: "timeline" });
  const slider = bar && html(bar, "input", { type: "range", max: STEPS, ariaLabel: "Time" });
  const clock = bar && html(bar, "span", { className: "clock", ariaLive: "off" });

  function draw(passedS) {
    for (const stage of stages) stage.draw(t, passedS);
    root.dataset.t = t;
    if (live) return;
    slider.value = (STEPS * t) / endS;
    slider.ariaValueText = clock.textContent = `${seconds(t)} of ${seconds(endS)}`;
    if (PLAYED_S > 2 * endS) clock.append(`, slowed ${(PLAYED_S / endS).toFixed(0)} times`);
  }

  function update(shown) {
    while (stages.length > shown.length) stages.pop().root.remove();
    while (stages.length < shown.length) stages.push(new Stage(row));
    [knownS, arrivedMs, endS] = [live ? known(shown) : 0, performance.now(), lastEvent(shown) || 1];
    const scale = scaled(most(shown, ({ due, end }) => (end ?? 0) - due) || 1);
    stages.forEach((stage, i) => stage.show(shown[i], scale, live ? BEHIND_S : (AHEAD_S * endS) / PLAYED_S));
    if (live && calm()) return (t = knownS), draw();
    if (live) return play();
    t = Math.min(t, endS);
    drawTimeline(timeline, shown, endS);
    draw();
  }

  function tick(ms) {
    const passedS = Math.min(0.25, Math.max(0, ms - then) / 1000);
    then = ms;
    frame = requestAnimationFrame(tick);
    if (live) follow(passedS, knownS + Math.min(0, (ms - arrivedMs) / 1000 - BEHIND_S));
    else advance(passedS, passedS);
  }

  function follow(passedS, wantedS) { // evenly: not into what is not known, nor back, unless far
    const evenly = t + passedS + (wantedS - t - passedS) * Math.min(1, 2 * passedS);
    t = Math.abs(wantedS - t) > 2 ? wantedS : Math.max(t, Math.min(knownS, evenly));
    draw(passedS);
  }

  function advance(playedS, passedS) {
    t = Math.min(endS, t + (playedS * endS) / PLAYED_S);
    draw(passedS);
    if (t === endS) pause();
  }

  function show(now) {
    playing = root.dataset.playing = now;
    if (button) button.textContent = now ? "Pause" : "Play";
  }

  function pause() {
    cancelAnimationFrame(frame);
    clearInterval(timer);
    show(false);
    draw();
  }

  function play() {
    if (playing) return;
    if (!live && t >= endS) seek(0);
    show(true);
    then = performance.now();
    if (calm()) timer = setInterval(() => advance(STILL_S), 1000 * STILL_S);
    else frame = requestAnimationFrame(tick);
  }

  function seek(toS) {
    t = Math.min(endS, Math.max(0, toS));
    draw();
  }

  const sizes = new ResizeObserver(() => stages.forEach((stage) => (stage.setUp(), stage.draw(t))));
  if (slider) slider.oninput = () => (seek((endS * slider.value) / STEPS), pause());
  update(scenes);
  if (!live) pause(), seek(at ?? 0);
  sizes.observe(root);
  return { seek, play, pause, update, destroy: () => (pause(), sizes.disconnect(), root.remove()) };
}

export default {
  render({ model, el }) {
    const handle = mount(el, model.get("scenes"), { live: model.get("live") ?? false, at: model.get("at") });
    const redraw = () => handle.update(model.get("scenes"));
    model.on("change:scenes", redraw);
    return () => (model.off("change:scenes", redraw), handle.destroy());
  },
};
