// The queues of lab/models/capacity.py and lab/models/queueing.py, which say where each formula is from.
// Requests arrive at random (Poisson); times are in seconds. Numbers are taken to be sane: the page checks them.

const NEARLY_CONSTANT = 0.1, LENGTHS = 20;
const MOST_SIMULATED = 64, MOST_COMPUTED = 1000, MOST_TERMS = 20000;
const HIGHEST = 0.9999, HIGHEST_SIMULATED = 0.97, TOLERANCE = 1e-6, TOLERANCE_SIMULATED = 1e-3;
const REQUESTS = 300000, IN_TAIL = 100, SEED = 20261128, NEGLIGIBLE = 1e-16;
const EXACT = ["central", "round-robin", "shortest", "random"];

const sum = (values) => values.reduce((total, value) => total + value, 0);
const mean = (values) => sum(values) / values.length;

/** The index of the first number from low to high - 1 for which `holds`, or high: it must hold from some on. */
function bisect(low, high, holds) {
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (holds(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** How many of `each` make the amount; 3.0000000001 are 3. */
const atLeast = (amount, each) => Math.max(1, Math.ceil((amount / each) * (1 - 1e-12)));

/** A sample of service times, sorted, with what is asked of it again and again. */
export function sample(service_s) {
  const sorted = Float64Array.from(service_s).sort();
  const mean_s = mean(sorted);
  const variation = Math.sqrt(mean(sorted.map((s) => (s - mean_s) ** 2))) / mean_s;
  const quantile = (share) => {
    const at = share * (sorted.length - 1), low = Math.floor(at);
    return sorted[low] + (at - low) * (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]);
  };
  const lengths = sorted.at(-1) > sorted[0]
    ? Array.from({ length: LENGTHS }, (_, i) => quantile((i + 0.5) / LENGTHS))
    : [sorted[0]];
  const drawn = new Map();
  return {
    sorted, mean_s, variation, quantile, lengths,
    shareWithin: (limit_s) => bisect(0, sorted.length, (i) => sorted[i] > limit_s * (1 + 1e-12)) / sorted.length,
    draws(count) {
      if (!drawn.has(count)) drawn.set(count, atRandom(sorted, count));
      return drawn.get(count);
    },
  };
}

/**
 * What is asked of a queue: which quantile of latency may be how long. `dispatch` is as in lab/models/simulation.py;
 * `told` are the highest utilisations of 1, 2, ... workers, where they are known beforehand.
 */
export function question(service, { quantile, slo_s, dispatch = "central", told = [] }) {
  const { mean_s } = service;
  const isExact = service.variation <= NEARLY_CONSTANT && EXACT.includes(dispatch);
  const alone = service.shareWithin(slo_s), isPossible = alone > quantile;
  const waits = service.lengths.map((length) => Math.round(((slo_s - length) / mean_s) * 1e9) / 1e9);
  const ofLengths = mean(waits.map((wait) => Number(wait >= 0)));
  const seldom = ofLengths ? Math.min(1, alone / ofLengths) : 1;
  const longest = Math.max(0, ...waits);
  const most = isExact ? HIGHEST : HIGHEST_SIMULATED;
  const known = isExact ? Math.min(MOST_COMPUTED, Math.floor(MOST_TERMS / (1 + longest))) : MOST_SIMULATED;

  /** The share of requests that are answered in time. */
  function within(workers, utilisation) {
    const sharing = dispatch === "random" ? 1 : workers;
    if (!isExact) {
      const took = simulated(service, quantile, Math.min(sharing, MOST_SIMULATED), utilisation, dispatch);
      return took.reduce((count, one) => count + (one <= slo_s / mean_s), 0) / took.length;
    }
    const law = sharing > known ? boundedLaw(sharing, utilisation) : exactLaw(sharing, utilisation);
    return seldom * mean(waits.map(law));
  }
  const isEnough = (workers, erlangs) => {
    if (workers <= told.length) return erlangs / workers <= told[workers - 1];
    return erlangs / workers <= most && within(workers, erlangs / workers) >= quantile;
  };

  /** The highest utilisation that is in time, rounded down to the tolerance; 0 if none is. */
  function highest(workers) {
    if (workers <= told.length) return told[workers - 1];
    const alike = dispatch === "random" ? 1 : isExact ? workers : Math.min(workers, MOST_SIMULATED);
    if (!found.has(alike)) found.set(alike, sought(alike));
    return found.get(alike);
  }
  const found = new Map();

  function sought(workers) {
    let low = 0, high = isPossible ? most : 0;
    while (high - low > (isExact ? TOLERANCE : TOLERANCE_SIMULATED)) {
      const middle = (low + high) / 2;
      if (within(workers, middle) >= quantile) low = middle;
      else high = middle;
    }
    return low;
  }

  /** The fewest workers for so many that are busy on average, or null if no number is enough. */
  function fewest(erlangs) {
    if (!isPossible) return null;
    const enough = (workers) => isEnough(workers, erlangs);
    const byShare = (workers) => ((share) => (share ? atLeast(erlangs, share) : null))(highest(workers));
    if (dispatch === "random") return byShare(1);
    const least = atLeast(erlangs, most);
    if (least <= known && enough(known)) return bisect(least, known, enough);
    if (!isExact) return ((workers) => workers && Math.max(known + 1, workers))(byShare(known));
    const from = Math.max(least, known + 1);
    return enough(10 * from) ? bisect(from, 10 * from, enough) : null;
  }

  /** The fewest machines of so many CPUs, a worker on each, behind a balancer that chooses at random; or null. */
  function machines(erlangs, cpus) {
    const share = highest(cpus);
    return share ? atLeast(erlangs, share * cpus) : null;
  }
  return { isExact, isPossible, alone, highest, fewest, machines, within };
}

/** The quantile of latency, in seconds, that so many workers have at a utilisation; null where it never settles. */
export function latency(service, { quantile, dispatch = "central" }, workers, utilisation) {
  const { isExact } = question(service, { quantile, dispatch, slo_s: service.mean_s });
  if (utilisation > (isExact ? HIGHEST : HIGHEST_SIMULATED)) return null;
  if (!isExact) {
    const sharing = Math.min(dispatch === "random" ? 1 : workers, MOST_SIMULATED);
    const took = simulated(service, quantile, sharing, utilisation, dispatch).sort();
    return took[Math.ceil(quantile * took.length) - 1] * service.mean_s;
  }
  const late = (slo_s) => question(service, { quantile, dispatch, slo_s }).within(workers, utilisation) < quantile;
  let low = 0, high = service.sorted.at(-1);
  while (late(high)) [low, high] = [high, 2 * high];
  while (high - low > 1e-6 * high) {
    const middle = (low + high) / 2;
    if (late(middle)) low = middle;
    else high = middle;
  }
  return high;
}

// M/D/c: the wait, in service times, of constant service.

let lastLaw = { workers: 0, utilisation: 0, law: null };

/** P(W <= x) for x in service times, by Franx. */
function exactLaw(workers, utilisation) {
  if (lastLaw.workers === workers && lastLaw.utilisation === utilisation) return lastLaw.law;
  const atMost = inSystem(workers, utilisation), last = atMost.length - 1;
  const law = (wait) => {
    if (wait < 0) return 0;
    const k = Math.floor(wait) + 1, arrivals = workers * utilisation * (k - wait), log = Math.log(arrivals);
    let share = 0, logFactorial = 0;
    for (let j = 0; j < k * workers; j++) {
      if (j) logFactorial += Math.log(j);
      const law = Math.exp(j * log - arrivals - logFactorial);
      share += atMost[Math.min(workers + k * workers - 1 - j, last)] * law;
      if (j > arrivals && law < 1e-20) break; // so is the rest
    }
    return Math.min(1, share);
  };
  lastLaw = { workers, utilisation, law };
  return law;
}

/** P(N <= n) for the number in the system, by its generating function and a Fourier transform (Crommelin). */
function inSystem(workers, utilisation) {
  const growth = 1 + decay(utilisation) / utilisation, load = workers * utilisation;
  const longest = Math.ceil(-Math.log(NEGLIGIBLE) / Math.log(growth)) + 1;
  const size = 2 ** (Math.floor(Math.log2(workers + longest)) + 1), half = size / 2;
  const cos = new Float64Array(size), sin = new Float64Array(size); // of z = e^(-2 pi i j / size)
  for (let j = 0; j < size; j++) {
    cos[j] = Math.cos((2 * Math.PI * j) / size);
    sin[j] = -Math.sin((2 * Math.PI * j) / size);
  }
  const re = new Float64Array(size), im = new Float64Array(size);
  re[0] = 1;
  for (let j = 1; j <= half; j++) {
    const power = (j * workers) % size, length = Math.exp(load * (cos[j] - 1));
    const arrivals = [length * Math.cos(load * sin[j]), length * Math.sin(load * sin[j])];
    const above = times([cos[j] - 1, sin[j]], arrivals);
    const quotient = divided(above, [cos[power] - arrivals[0], sin[power] - arrivals[1]]);
    re[j] = quotient[0] * workers * (1 - utilisation);
    im[j] = quotient[1] * workers * (1 - utilisation);
  }
  for (let k = 1; k <= workers / 2; k++) multiply(re, im, cos, sin, root(k, workers, utilisation), 2 * k === workers);
  for (let j = 1; j < half; j++) {
    re[size - j] = re[j];
    im[size - j] = -im[j];
  }
  fourier(re, im, cos, sin);
  let total = 0;
  return re.map((one) => (total += one / size));
}

/** Multiply by (z - r) / (1 - r) up to half the circle and, unless the root r is real, by the same of its conjugate. */
function multiply(re, im, cos, sin, [x, y], isReal) {
  const scale = isReal ? 1 / (1 - x) : 1 / ((1 - x) ** 2 + y * y), offset = x * x + y * y;
  for (let j = 1; j <= re.length / 2; j++) {
    const c = cos[j], s = sin[j];
    // (z - r)(z - r*) = z^2 - 2 x z + |r|^2
    const a = (isReal ? c - x : c * c - s * s - 2 * x * c + offset) * scale;
    const b = (isReal ? s : 2 * s * (c - x)) * scale;
    const before = re[j];
    re[j] = before * a - im[j] * b;
    im[j] = before * b + im[j] * a;
  }
}

const times = ([a, b], [c, d]) => [a * c - b * d, a * d + b * c];
const divided = ([a, b], [c, d]) => times([a, b], [c / (c * c + d * d), -d / (c * c + d * d)]);

/** The k-th root inside the unit circle of z = w e^(rho (z - 1)), w the k-th root of unity: by Newton's method. */
function root(k, workers, utilisation) {
  const turn = (2 * Math.PI * k) / workers;
  let z = [0, 0];
  for (let step = 0; step < 100; step++) {
    const angle = turn + utilisation * z[1], length = Math.exp(utilisation * (z[0] - 1));
    const image = [length * Math.cos(angle), length * Math.sin(angle)];
    if (step < 20) z = image; // a contraction: near the root before Newton's steps
    else {
      const change = divided([z[0] - image[0], z[1] - image[1]], [1 - utilisation * image[0], -utilisation * image[1]]);
      z = [z[0] - change[0], z[1] - change[1]];
      if (Math.hypot(...change) < 1e-15) break;
    }
  }
  return z;
}

/** The discrete Fourier transform back from frequencies, in place; its size is a power of two. */
function fourier(re, im, cos, sin) {
  const size = re.length;
  const swap = (values, i, j) => ([values[i], values[j]] = [values[j], values[i]]);
  for (let i = 1, j = 0; i < size; i++) {
    let bit = size >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) { swap(re, i, j); swap(im, i, j); }
  }
  for (let length = 2; length <= size; length *= 2) {
    for (let k = 0; k < length / 2; k++) {
      const c = cos[(k * size) / length], s = -sin[(k * size) / length];
      for (let a = k; a < size; a += length) {
        const b = a + length / 2, x = re[b] * c - im[b] * s, y = re[b] * s + im[b] * c;
        re[b] = re[a] - x;
        im[b] = im[a] - y;
        re[a] += x;
        im[a] += y;
      }
    }
  }
}

// Beyond as many workers: a bound from below, close for many.

/** y > 0 with 1 + y / rho = e^y, by Newton's method from above. */
function decay(utilisation) {
  let y = Math.min(2 / utilisation - 2, 2 - 2 * Math.log(utilisation));
  for (let step = 0; step < 100; step++) {
    const change = (y / utilisation - Math.expm1(y)) / (1 / utilisation - Math.exp(y));
    y -= change;
    if (Math.abs(change) <= 1e-15 * y) break;
  }
  return y;
}

/** A lower bound of P(W <= x): Kingman's, and Spitzer's for those who do not wait at all. */
function boundedLaw(workers, utilisation) {
  const rate = workers * decay(utilisation), atOnce = servedAtOnce(workers, utilisation);
  return (wait) => (wait < 0 ? 0 : Math.max(-Math.expm1(-rate * wait), atOnce));
}

function servedAtOnce(workers, utilisation) {
  const spread = workers * (utilisation - 1 - Math.log(utilisation));
  if (spread < 1e-3) return 0;
  let some = 0;
  for (let n = 1; n <= Math.ceil(37 / spread); n++) some += gammaShare(n * workers, n * workers * utilisation) / n;
  return Math.exp(-some);
}

/** The regularized incomplete gamma function P(a, x): its series or, for large a and x < a, Temme's (1979). */
function gammaShare(a, x) {
  if (a < 1000) {
    let term = 1 / a, total = term;
    for (let n = 1; term > 1e-17 * total; n++) total += term *= x / (a + n);
    return total * Math.exp(a * Math.log(x) - x - logGamma(a));
  }
  const mu = x / a - 1, eta = -Math.sqrt(2 * (mu - Math.log1p(mu)));
  const spread = (a * eta * eta) / 2;
  const first = 1 / mu - 1 / eta, second = 1 / eta ** 3 - 1 / mu ** 3 - 1 / mu ** 2 - 1 / (12 * mu);
  const rest = (Math.exp(-spread) / Math.sqrt(2 * Math.PI * a)) * (first + second / a);
  return Math.max(0, (1 - (spread > 36 ? 1 : gammaShare(0.5, spread))) / 2 - rest);
}

/** ln Gamma(a), by Stirling's series from 10 on. */
function logGamma(a) {
  if (a < 10) return logGamma(a + 1) - Math.log(a);
  const series = 1 / 12 - (1 / 360 - (1 / 1260 - 1 / (1680 * a * a)) / (a * a)) / (a * a);
  return (a - 0.5) * Math.log(a) - a + Math.log(2 * Math.PI) / 2 + series / a;
}

// Service times that vary: simulated.

/** Gaps and service times of so many requests, both with a mean of 1: the same at each call. */
function atRandom(sorted, count) {
  let state = SEED;
  const uniform = () => { // mulberry32
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
    return (((mixed ^ (mixed >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  };
  const gaps = new Float64Array(count).map(() => -Math.log(uniform()));
  const works = new Float64Array(count).map(() => sorted[Math.floor(uniform() * sorted.length)]);
  const scaled = (values) => ((average) => values.map((value) => value / average))(mean(values));
  return { gaps: scaled(gaps), works: scaled(works) };
}

/** How long requests take, in mean service times, once the queue has settled. */
function simulated(service, quantile, workers, utilisation, dispatch) {
  const { gaps, works } = service.draws(Math.max(REQUESTS, Math.ceil(IN_TAIL / (1 - quantile))));
  const count = gaps.length, took = new Float64Array(count), free = new Float64Array(workers);
  let due = 0;
  for (let i = 0, next = gaps[0] / (workers * utilisation); i < count; ) {
    due = next;
    const worker = dispatch === "round-robin" ? i % workers : 0; // else the root of a heap: free first
    const taken = Math.max(due, free[worker]);
    let end = taken;
    do {
      end += works[i];
      took[i] = end - due;
      due += gaps[++i] / (workers * utilisation);
    } while (dispatch === "batches" && i < count && due <= taken);
    next = due;
    free[worker] = end;
    if (dispatch !== "round-robin") sink(free);
  }
  return took.subarray(Math.floor(count / 10)).slice();
}

/** Let the root of a heap sink to its place. */
function sink(heap) {
  const value = heap[0], count = heap.length;
  let at = 0;
  for (let child = 1; child < count; child = 2 * at + 1) {
    if (child + 1 < count && heap[child + 1] < heap[child]) child++;
    if (heap[child] >= value) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = value;
}
