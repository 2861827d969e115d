// The model of the page in plain JavaScript, then what shows it. Tests call it by name.
"use strict";
const $ = (id) => document.getElementById(id);
const range = (count) => [...Array(count).keys()];
const sum = (values) => values.reduce((all, each) => all + each, 0);
const most = (values) => values.reduce((a, b) => Math.max(a, b));
const least = (values) => values.reduce((a, b) => Math.min(a, b));
const cut = (all, at = all.length >> 1) => [all.slice(0, at), all.slice(at)];
const bytes = (text) => Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
const page = JSON.parse($("page").textContent, (_, value) => {
  if (value?.int16 === undefined) return value;
  const scales = new Float32Array(bytes(value.scale).buffer);
  const whole = Float32Array.from(new Int16Array(bytes(value.int16).buffer));
  const numbers = whole.map((n, i) => n * scales[i % scales.length]);
  return Object.assign(numbers, { shape: value.shape }); // [..., C], row by row
});
const row = (array, i) => array.slice(i * array.shape[1], (i + 1) * array.shape[1]);

// --- Networks, as in core/model/networks.py ------------------------------------------

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
function erf(x) { // Abramowitz and Stegun, 7.1.26: off by at most 1.5e-7
  const c = [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592];
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  return Math.sign(x) * (1 - c.reduce((all, a) => (all + a) * t, 0) * Math.exp(-x * x));
}
const activation = {
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  relu: (x) => Math.max(x, 0),
  silu: (x) => x * sigmoid(x),
  tanh: Math.tanh,
}[page.activation];

function dense({ w, b }, x) {
  const out = b.slice();
  for (let i = 0, at = 0; i < x.length; i++, at += out.length)
    if (x[i]) for (let j = 0; j < out.length; j++) out[j] += x[i] * w[at + j];
  return out;
}

// Filters of 3x3 between a small image and one of `stride` times its side: pixel p of
// the small one meets q of the large one. Upwards it is the transposed convolution.
function convolve({ w, b }, x, stride, up) {
  const [, , inputs, outputs] = w.shape, side = Math.sqrt(x.length / inputs);
  const small = up ? side : side / stride, large = small * stride;
  const out = new Float32Array(outputs * (up ? large : small) ** 2);
  for (let i = 0; i < out.length; i++) out[i] = b[i % outputs];
  for (let p = 0; p < small * small; p++) for (let k = 0; k < 9; k++) {
    const y = stride * Math.floor(p / small) + Math.floor(k / 3) + stride - 2;
    const z = stride * (p % small) + (k % 3) + stride - 2, q = y * large + z;
    if (Math.min(y, z) < 0 || Math.max(y, z) >= large) continue;
    const from = inputs * (up ? p : q), to = outputs * (up ? q : p);
    for (let i = 0, at = k * inputs * outputs; i < inputs; i++, at += outputs)
      for (let j = 0; j < outputs; j++) out[to + j] += x[from + i] * w[at + j];
  }
  return out;
}

function network(layers, x, y) { // labels stand beside the first dense layer's input
  let labels = page.conditional ? range(10).map((c) => +(c === y)) : [], up = false;
  for (const [name, layer] of Object.entries(layers)) {
    if (layer.w.shape.length === 2)
      [x, labels, up] = [dense(layer, Float32Array.of(...x, ...labels)), [], true];
    else x = convolve(layer, x, name === "output" ? 1 : 2, up);
    if (name !== "output") x = x.map(activation);
  }
  return x;
}

// --- Densities in nats, as in core/model ---------------------------------------------

function gaussian(outputs) {
  const [mean, bounded] = cut(outputs);
  return { mean, log_var: bounded.map((v) => Math.min(v, page.max_log_var)) };
}
const gaussians = ({ logits, mean, log_var }) => range(mean.shape[0]).map((i) =>
  ({ mean: row(mean, i), log_var: row(log_var, i), logit: logits?.[i] }));
const logNormal = (z, { mean, log_var }) => -0.5 * z.reduce((all, v, d) => all
  + log_var[d] + (v - mean[d]) ** 2 * Math.exp(-log_var[d]) + Math.log(2 * Math.PI), 0);
const draw = ({ mean, log_var }, noise) =>
  mean.map((m, d) => m + Math.exp(log_var[d] / 2) * noise[d]);
function logSumExp(terms) {
  const top = most(terms);
  return top + Math.log(sum(terms.map((term) => Math.exp(term - top))));
}

const parts = gaussians(page.prior), flow = page.weights.prior;
const logMixture = (z) => logSumExp(parts.map((c) => c.logit + logNormal(z, c)))
  - logSumExp(parts.map((c) => c.logit));
function logFlow(z) {
  const e = cut(z), none = z.map(() => 0);
  const logDet = sum(range(Object.keys(flow).length).map((i) => {
    const [outputs, shift] = cut(network(flow[`coupling_${i}`], e[i % 2]));
    const logScale = outputs.map(Math.tanh), moved = 1 - (i % 2);
    e[moved] = e[moved].map((v, d) => v * Math.exp(logScale[d]) + shift[d]);
    return sum(logScale);
  }));
  return logDet + logNormal([...e[0], ...e[1]], { mean: none, log_var: none });
}
const logTop = flow ? logFlow : logMixture;
const lower = (z_2, y) => gaussian(network(page.weights.upper_decoder, z_2, y));
const logPrior = ([z, above], y) =>
  (above ? logTop(above) + logNormal(z, lower(above, y)) : logTop(z));
const logits = (z, y) => network(page.weights.decoder, z, y); // of z next to the image
const encode = (x, y) => gaussian(network(page.weights.encoder, x, y));

function infer(first, noise, y) { // q(z|x) -> q of each layer, and z drawn from it
  const [here, rest] = cut(noise, first.mean.length), z = draw(first, here);
  if (!rest.length) return [{ ...first, z }];
  const second = gaussian(network(page.weights.upper_encoder, z, y));
  return [{ ...first, z }, { ...second, z: draw(second, rest) }];
}

function measure(x, y) { // distortion and rate: means over the samples of the page
  const first = encode(x, y), count = page.noise.shape[0];
  let distortion = 0, rate = 0;
  for (const k of range(count)) {
    const [q, above] = infer(first, row(page.noise, k), y), upper = above ?? q;
    const kl = (m, d) => (m * m + Math.expm1(upper.log_var[d]) - upper.log_var[d]) / 2;
    distortion += sum(logits(q.z, y).map((l, i) =>
      Math.max(l, 0) - l * x[i] + Math.log1p(Math.exp(-Math.abs(l)))));
    rate += page.exact_kl ? sum(upper.mean.map(kl))
      : logNormal(upper.z, upper) - logTop(upper.z);
    if (above) rate += logNormal(q.z, q) - logNormal(q.z, lower(above.z, y));
  }
  return { distortion: distortion / count, rate: rate / count };
}

// --- What is shown: a point z, and an image x with its posterior q -------------------

const depth = page.layers.length, still = row(page.noise, 0).fill(0);
const state = { z: [], y: 0, x: null, q: null, ends: [], layer: depth - 1, dims: [] };
const every = (selector, action) => document.querySelectorAll(selector).forEach(action);
const html = (id, pieces) => { $(id).innerHTML = pieces.join(""); };
const fixed = (values) => Array.from(values, (value) => value.toFixed(2));

function paint(canvas, x) { // black, as opaque as the pixel
  const picture = new ImageData(28, 28);
  x.forEach((pixel, i) => { picture.data[4 * i + 3] = Math.round(255 * pixel); });
  Object.assign(canvas, { width: 28, height: 28 });
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

const decode = ([z]) => logits(z, state.y).map(sigmoid);

function render() {
  const z = state.z[state.layer], [x, y] = place(z), decoded = decode(state.z);
  every(".decoded", (canvas) => paint(canvas, decoded));
  every("#walk label input", (slider) => {
    slider.value = z[slider.name];
    slider.nextElementSibling.value = z[slider.name].toFixed(2);
  });
  every("#classes button", (button, c) => { button.ariaPressed = c === state.y; });
  $("z").value = fixed(z).join("  ");
  $("log-prior").value = logPrior(state.z, state.y).toFixed(2);
  const ends = state.ends.map((end) => place(end[state.layer])).join("L");
  html("overlay", [`<path d="M${ends}"/><circle cx="${x}" cy="${y}" r="1"/>`,
    ...(state.q ? [1, 2] : []).map(ellipse)]);
}
function ellipse(deviations) { // of the posterior
  const { mean, log_var } = state.q[state.layer], [x, y] = place(mean);
  const [rx, ry] = shown(log_var, -99).map((v, axis) =>
    100 * deviations * Math.exp(v / 2) / (spans[axis][1] - spans[axis][0]));
  return `<ellipse cx="${x}" cy="${y}" rx="${rx}" ry="${ry}"/>`;
}
let frame = 0;
function show() { // once a frame, the latest
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(render);
}

function put(z) { // into the layer that is shown; z_1 follows as the mean of p(z_1|z_2)
  state.z = state.layer ? [lower(z, state.y).mean, z] : [z, ...state.z.slice(1)];
  show();
}
function keep() { // as the end of the walk, whose start is the end before
  state.ends = [state.ends.at(-1) ?? state.z, state.z];
  $("between").value = 1;
  paintEnds();
}
function paintEnds() {
  every(".end", (canvas, i) => paint(canvas, decode(state.ends[i])));
}

function look(x, what, noise = still) { // put z where the encoder puts an image
  const q = x && encode(x, state.y);
  Object.assign(state, { x, what, q: x && infer(q, still, state.y) });
  if (x) state.z = infer(q, noise, state.y).map((each) => each.z);
  clearTimeout(telling);
  telling = setTimeout(tell, 40); // convolutions take longer than a frame
  show();
}
let telling = 0;
function tell() {
  const { x, what } = state;
  paint($("seen"), x ?? []);
  const all = [`mean of ${page.images.toLocaleString("en")} ${page.kind} images`, page];
  const rows = x ? [[what, measure(x, state.y)], all] : [all];
  html("numbers", rows.map(([name, { distortion, rate }]) =>
    `<tr><th>${[name, ...fixed([distortion, rate, distortion + rate])].join("<td>")}`));
}

// Pointer and keys alike: `move` to (x, y) in [0, 1] from the lower left, by a key from
// `where` it is; `press` with true, with false at its end, with nothing by a key.
function listen(paper, where, move, press) {
  const keys = { ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
  Object.assign(keys, { ArrowDown: [0, -1], ArrowUp: [0, 1] });
  const to = (place) => move(place.map((v) => Math.min(Math.max(v, 0), 1)));
  paper.onpointermove = ({ clientX, clientY }) => {
    const { left, bottom, width, height } = paper.getBoundingClientRect();
    to([(clientX - left) / width, (bottom - clientY) / height]);
  };
  paper.onpointerdown = (event) => {
    paper.setPointerCapture(event.pointerId);
    paper.onpointermove(event);
    press(true);
  };
  paper.onpointerup = () => press(false);
  paper.onkeydown = ({ key }) => {
    if (keys[key]) to(where().map((v, axis) => v + keys[key][axis] / 50));
    else if (key === "Enter" || key === " ") press();
    else return true;
    return false; // the page does not scroll
  };
}

// --- The map: two dimensions of a layer, or one, with the labels upwards -------------

const classes = [...new Set(page.labels)].sort((a, b) => a - b);
const color = (label) => (classes.length <= 10 ? page.colors[label % 10] :
  `hsl(${360 * classes.indexOf(label) / classes.length} 70% 45%)`);
let spans = []; // [low, high] of both axes
const shown = (z, label = 4.5) => [z[state.dims[0]], z[state.dims[1]] ?? label];
const place = (z, label) => shown(z, label).map((v, axis) => { // in the drawing's units
  const part = (v - spans[axis][0]) / (spans[axis][1] - spans[axis][0]);
  return 100 * (axis ? 1 - part : part);
});

function paintMap() {
  const q = gaussians(page.layers[state.layer]);
  const points = q.map(({ mean }, i) => shown(mean, page.labels[i]));
  spans = [0, 1].map((axis) => {
    const values = points.map((point) => point[axis]);
    const [low, high] = [least(values), most(values)], room = 0.1 + (high - low) / 15;
    return [low - room, high + room];
  });
  html("dots", q.map(({ mean }, i) =>
    `<path stroke="${color(page.labels[i])}" d="M${place(mean, page.labels[i])}h0"/>`));
  const text = (x, y, v) => `<text x="${x}" y="${y}">${v.toFixed(1)}</text>`;
  html("ticks", [0, 1].map((end) =>
    text(2 + 90 * end, 99, spans[0][end]) + text(1, 94 - 90 * end, spans[1][end])));
  $("shade").hidden = $("key").hidden = !$("density").checked;
  if ($("density").checked) paintDensities(q);
  show();
}

const GRID = 300; // cells a side
function density(mixture, blur = 0) { // at each cell, up to a factor
  const cells = new Float32Array(GRID * GRID);
  for (const { mean, log_var, logit } of mixture) {
    const [across, up] = spans.map(([low, high], axis) => range(GRID).map((i) => {
      const v = low + ((i + 0.5) / GRID) * (high - low), d = state.dims[axis];
      const cell = blur * (high - low) / GRID; // else a narrow one may lie between two
      const of = { mean: [mean[d]], log_var: [Math.log(Math.exp(log_var[d]) + cell ** 2)] };
      return axis in state.dims ? Math.exp(logNormal([v], of)) : 1;
    }));
    up.forEach((v, j) => {
      const weight = v * Math.exp(logit ?? 0), from = GRID * (GRID - 1 - j);
      if (weight > 1e-9) across.forEach((u, i) => { cells[from + i] += weight * u; });
    });
  }
  return cells;
}
function levels(mixture, draws) { // those of which 50, 90 and 99 % of the draws lie within
  const flat = mixture.map(({ mean, log_var, logit }) => ({ logit: logit ?? 0,
    mean: state.dims.map((d) => mean[d]), log_var: state.dims.map((d) => log_var[d]) }));
  const falling = Float64Array.from(draws, (z) => sum(flat.map((part) =>
    Math.exp(part.logit + logNormal(state.dims.map((d) => z[d]), part))))).sort().reverse();
  return [0.5, 0.9, 0.99].map((share) => falling[Math.ceil(share * draws.length) - 1]);
}
function paintDensities(q) {
  let draws = range(page.draws.shape[0]).map((i) => row(page.draws, i)), of = parts;
  if (state.layer < depth - 1) {
    of = draws.map((z_2) => lower(z_2, state.y));
    draws = of.map((part) => draw(part, part.mean.map(normal)));
  }
  const prior = density(of), images = density(q, 1), least = levels(of, draws);
  const rank = Array.from(prior, (each) => sum(least.map((level) => each >= level)));
  const picture = new ImageData(GRID, GRID), densest = most(images);
  images.forEach((each, i) => {
    const near = (i + 1) % GRID ? [i + 1, i + GRID] : [i + GRID];
    const line = near.some((next) => rank[i] !== (rank[next] ?? rank[i]));
    const shade = line ? 255 : 200 * (each / densest) ** 0.4;
    picture.data.set([110, 120, 140, shade], 4 * i);
  });
  $("shade").getContext("2d").putImageData(picture, 0, 0);
}

const here = () => place(state.z[state.layer]);
listen($("map"), () => [here()[0] / 100, 1 - here()[1] / 100], (at) => {
  const z = state.z[state.layer].slice();
  state.dims.forEach((d, axis) => {
    z[d] = spans[axis][0] + at[axis] * (spans[axis][1] - spans[axis][0]);
  });
  if (!playing) put(z);
}, (pressed) => { if (pressed !== false) keep(); });

// --- The paper -----------------------------------------------------------------------

const SIDE = 280, pen = $("pad").getContext("2d", { willReadFrequently: true });
Object.assign(pen, { lineWidth: 22, lineCap: "round", lineJoin: "round" });
let tip = [SIDE / 2, SIDE / 2], down = false;
function stroke(to) {
  if (down) {
    pen.beginPath();
    pen.moveTo(...tip);
    pen.lineTo(to[0], to[1] + 0.1); // so that a click makes a dot
    pen.stroke();
    look(prepared(), "your drawing");
  }
  tip = to;
  $("pad").style.backgroundPosition = to.map((v) => `${v - SIDE}px`).join(" ");
}
listen($("pad"), () => [tip[0] / SIDE, 1 - tip[1] / SIDE],
  ([x, y]) => stroke([SIDE * x, SIDE * (1 - y)]), (pressed) => {
    down = pressed ?? !down;
    if (down) stroke(tip);
    else keep();
  });

function prepared() { // as MNIST's were: box into 20x20, center of mass in the middle
  const inks = (on, side) =>
    on.getImageData(0, 0, side, side).data.filter((_, i) => i % 4 === 3);
  const ink = inks(pen, SIDE), marks = range(ink.length).filter((i) => ink[i]);
  const places = [marks.map((i) => i % SIDE), marks.map((i) => Math.floor(i / SIDE))];
  const scale = 20 / most(places.map((each) => 1 + most(each) - least(each)));
  const small = new OffscreenCanvas(28, 28).getContext("2d");
  small.imageSmoothingQuality = "high";
  const corner = places.map((each) => 14 - scale * sum(each) / marks.length);
  small.drawImage($("pad"), ...corner, SIDE * scale, SIDE * scale);
  return Float32Array.from(inks(small, 28), (v) => +(v >= 128)); // none stays grey
}

const bits = bytes(page.pixels);
const image = (i) => Float32Array.from(range(784), (p) =>
  (bits[98 * i + (p >> 3)] >> (7 - (p % 8))) & 1);
function take(i) {
  if (page.conditional) state.y = page.labels[i];
  look(image(i), `${page.kind} image ${i + 1}`);
  keep();
}
const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random()))
  * Math.cos(2 * Math.PI * Math.random()); // Box and Muller
$("images").onclick = ({ target }) => take(+target.closest("button").value);
$("sample").onclick = () => look(state.x, state.what, still.map(normal));
$("clear").onclick = () => {
  pen.clearRect(0, 0, SIDE, SIDE);
  look(null);
};

// --- The walk, and what is chosen ----------------------------------------------------

let playing = 0; // since when
function morph() {
  const [from, to] = state.ends, part = $("between").value;
  state.z = from.map((z, i) => z.map((v, d) => v + part * (to[i][d] - v)));
  show();
}
function play(now) {
  $("play").textContent = playing ? "Stop" : "Play";
  if (!playing) return;
  $("between").value = 0.5 - 0.5 * Math.cos((now - playing) / 1000);
  morph();
  requestAnimationFrame(play);
}
$("between").oninput = morph;
$("play").onclick = () => play(playing = playing ? 0 : performance.now());
$("walk").oninput = ({ target }) => {
  if (target.name) put(state.z[state.layer].with(target.name, target.value));
};

function choose(layer) { // which one is on the map and has sliders
  const { order, active, values, measure, mean } = page.layers[layer];
  const name = (d) => `z<sub>${depth > 1 ? `${layer + 1}, ` : ""}${d + 1}</sub>`;
  const reach = Math.max(4, most(mean), -least(mean));
  const slider = (d) => `<label>
    <span>${name(d)} <small>${measure} ${values[d].toFixed(2)}</small></span>
    <input type="range" name="${d}" min="${-reach}" max="${reach}" step="0.01">
    <output></output></label>`;
  html("sliders", order.filter((d) => active[d]).map(slider));
  html("folded", order.filter((d) => !active[d]).map(slider));
  Object.assign(state, { layer, dims: order.slice(0, 2).sort((a, b) => a - b) });
  every(".axis", (select, axis) => {
    select.innerHTML = order.map((d) => `<option value="${d}">${d + 1}`).join("");
    select.value = state.dims[axis];
    select.onchange = () => {
      state.dims[axis] = +select.value;
      paintMap();
    };
  });
  paintMap();
}
$("layer").onchange = ({ target }) => choose(+target.value);
$("density").onchange = paintMap;
$("classes").onclick = ({ target }) => {
  const { z } = state;
  state.y = +target.value;
  look(state.x, state.what);
  state.z = z; // the same style, of another class
  paintEnds();
};

html("classes", range(10).map((c) => `<button value="${c}">${c}</button>`));
html("layer", range(depth).reverse().map((i) => `<option value="${i}">${i + 1}`));
html("legend", classes.map((c) => `<li style="--color: ${color(c)}">${c}`));
const firsts = classes.slice(0, 10).map((c) => page.labels.indexOf(c));
html("images", firsts.map((i) => `<button value="${i}" aria-label="image ${i + 1},
  a ${page.labels[i]}"><canvas class="pixels"></canvas></button>`));
every("#images canvas", (canvas, n) => paint(canvas, image(firsts[n])));
take(firsts.at(-1));
take(firsts[0]);
choose(depth - 1);
