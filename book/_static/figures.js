/*
 * The small figures with sliders. Each stands where a page has a box of its class:
 *
 *   live-inner-rate       rate and steps of the inner loop      (chapter: the inner loop)
 *   live-prior-variance   a prior's width and the posterior     (chapter: Bayesian)
 *   live-task-attention   attention between tasks               (chapter: MetaMind)
 *
 *  1 numbers and mathematics      2 drawing and sliders      3 the three figures
 *
 * The numbers are made up for the figures. tests/test_interactive.py compares part 1 with
 * a computation in Python. Nothing moves by itself.
 */
(function () {
  "use strict";

  /* 1 Numbers and mathematics ------------------------------------------------------- */

  /* Five ratings: the film's one trait, and stars minus everyone's score. */
  const INNER = { trait: [0.9, 1, 0.8, 0.7, -0.6], surprise: [1.2, 1, 0.4, 1, -1.6] };

  /* Fifteen ratings of a user whose taste is 0.8. The first one is too enthusiastic. */
  const PRIOR = {
    taste: 0.8,
    noise: 0.9,
    trait: [1, -0.6, 0.8, 1.2, -1, 0.5, 0.9, -0.7, 1.1, -0.4, 0.6, -1.1, 0.8, 1, -0.9],
    surprise: [2.1, 0.2, 0.3, 1.4, -0.3, 1.1, 0.2, -1.3, 1.5, 0.3, 0.1, -1.4, 1, 0.6, -0.9],
  };

  /* Three kinds of users: what a code is compared with, and where each would start. */
  const SLOTS = {
    keys: [[0, 4], [-3.4641, -2], [3.4641, -2]],
    bias: [0, 0, 0],
    deltas: [[0, 1], [-0.866, -0.5], [0.866, -0.5]],
    start: [0, 0],
  };

  /* Hessian, smallest and largest eigenvalue and the minimum of the inner loss. */
  function curvature(data) {
    let [a, b, d, p, q] = [0, 0, 0, 0, 0];
    data.trait.forEach((x, i) => {
      a += 1;
      b += x;
      d += x * x;
      p += data.surprise[i];
      q += x * data.surprise[i];
    });
    const middle = (a + d) / 2;
    const reach = Math.hypot((a - d) / 2, b);
    const det = a * d - b * b;
    return {
      hessian: [a, b, d],
      small: middle - reach,
      large: middle + reach,
      angle: Math.atan2(2 * b, a - d) / 2, // of the steep direction
      minimum: [(d * p - b * q) / det, (a * q - b * p) / det],
    };
  }

  function innerLoss(data, w) {
    let sum = 0;
    data.trait.forEach((x, i) => { sum += (w[0] + x * w[1] - data.surprise[i]) ** 2; });
    return sum / 2;
  }

  /* w <- w - rate * grad L(w) from zero: every point on the way. */
  function innerPath(data, rate, steps) {
    const path = [[0, 0]];
    for (let step = 0; step < steps; step += 1) {
      const w = path[step];
      const gradient = [0, 0];
      data.trait.forEach((x, i) => {
        const error = w[0] + x * w[1] - data.surprise[i];
        gradient[0] += error;
        gradient[1] += error * x;
      });
      path.push([w[0] - rate * gradient[0], w[1] - rate * gradient[1]]);
    }
    return path;
  }

  /* Mean and standard deviation after 0, 1, ... ratings; `alone` is least squares. */
  function posteriors(data, width) {
    let precision = 1 / width ** 2;
    let [evidence, information] = [0, 0];
    const found = [{ mean: 0, sd: width, alone: null }];
    data.trait.forEach((x, i) => {
      precision += (x / data.noise) ** 2;
      information += (x / data.noise) ** 2;
      evidence += x * data.surprise[i] / data.noise ** 2;
      found.push({
        mean: evidence / precision,
        sd: Math.sqrt(1 / precision),
        alone: evidence / information,
      });
    });
    return found;
  }

  /* Softmax over the slots, and the start that it gives. */
  function attend(data, code) {
    const logits = data.keys.map((k, m) => k[0] * code[0] + k[1] * code[1] + data.bias[m]);
    const top = Math.max(...logits);
    const raw = logits.map((z) => Math.exp(z - top));
    const sum = raw.reduce((s, z) => s + z, 0);
    const weights = raw.map((z) => z / sum);
    const start = [0, 1].map((i) => (
      data.deltas.reduce((s, delta, m) => s + weights[m] * delta[i], data.start[i])
    ));
    return { weights, start };
  }

  window.METAREC_FIGURES = {
    data: { inner: INNER, prior: PRIOR, slots: SLOTS },
    curvature,
    innerLoss,
    innerPath,
    posteriors,
    attend,
  };

  /* 2 Drawing and sliders ----------------------------------------------------------- */

  const SVG = "http://www.w3.org/2000/svg";

  function svg(parent, name, attributes, text) {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    parent.append(node);
    return node;
  }

  function html(parent, name, className, text) {
    const node = document.createElement(name);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    parent.append(node);
    return node;
  }

  /* A number with a true minus sign. */
  function shown(value, digits) {
    return value.toFixed(digits).replace(/^-(?=0(\.0*)?$)/, "").replace("-", "\u2212");
  }

  let counted = 0;

  /*
   * The frame of a plot with axes: `x` and `y` are [from, to, ticks, name]. Returns the
   * group for what changes, clipped to the frame, and the two scales.
   */
  function plot(parent, options) {
    const { width, height, x, y, title } = options;
    const edge = { left: 46, right: 10, top: 10, bottom: 42 };
    counted += 1;
    const root = svg(parent, "svg", {
      class: width > 400 ? "live-wide" : "live-half",
      viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title,
    });
    const inner = [width - edge.left - edge.right, height - edge.top - edge.bottom];
    const toX = (v) => edge.left + (v - x[0]) / (x[1] - x[0]) * inner[0];
    const toY = (v) => edge.top + (y[1] - v) / (y[1] - y[0]) * inner[1];
    const frame = { x: edge.left, y: edge.top, width: inner[0], height: inner[1] };
    const clip = svg(svg(root, "defs"), "clipPath", { id: `live-clip-${counted}` });
    svg(clip, "rect", frame);
    svg(root, "rect", { class: "live-frame", ...frame });
    for (const v of x[2]) {
      svg(root, "line", { class: "live-grid", x1: toX(v), x2: toX(v), y1: toY(y[0]), y2: toY(y[1]) });
      const place = { class: "live-tick", x: toX(v), y: height - edge.bottom + 16, "text-anchor": "middle" };
      svg(root, "text", place, shown(v, options.digits || 0));
    }
    for (const v of y[2]) {
      svg(root, "line", { class: "live-grid", x1: toX(x[0]), x2: toX(x[1]), y1: toY(v), y2: toY(v) });
      const place = { class: "live-tick", x: edge.left - 6, y: toY(v) + 4, "text-anchor": "end" };
      svg(root, "text", place, shown(v, options.digits || 0));
    }
    const middle = edge.top + inner[1] / 2;
    svg(root, "text", { class: "live-axis", x: edge.left + inner[0] / 2, y: height - 6, "text-anchor": "middle" }, x[3]);
    svg(root, "text", {
      class: "live-axis", x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})`,
    }, y[3]);
    const back = svg(root, "g", { "clip-path": `url(#live-clip-${counted})` });
    const front = svg(root, "g", { "clip-path": `url(#live-clip-${counted})` });
    const holds = (w) => w[0] >= x[0] && w[0] <= x[1] && w[1] >= y[0] && w[1] <= y[1];
    return { root, back, front, toX, toY, holds };
  }

  function line(points, p) {
    return points.map((w, i) => `${i ? "L" : "M"}${p.toX(w[0]).toFixed(2)} ${p.toY(w[1]).toFixed(2)}`).join("");
  }

  /* A labelled slider. `say` turns its value into what is shown beside it and read out. */
  function slider(parent, options) {
    counted += 1;
    const row = html(parent, "div", "live-slider");
    const label = html(row, "label", "", options.label);
    const input = html(row, "input");
    const value = html(row, "span", "live-value");
    value.setAttribute("aria-hidden", "true"); // read out as the slider's own text
    label.htmlFor = input.id = `live-slider-${counted}`;
    input.type = "range";
    for (const key of ["min", "max", "step", "value"]) input[key] = options[key];
    input.refresh = () => {
      value.textContent = options.say(Number(input.value));
      input.setAttribute("aria-valuetext", value.textContent);
    };
    return input;
  }

  function legend(parent, entries) {
    const list = html(parent, "ul", "live-key");
    for (const [kind, text] of entries) {
      const item = html(list, "li");
      const mark = svg(item, "svg", { viewBox: "0 0 28 12", "aria-hidden": "true" });
      if (kind.endsWith("-dot")) svg(mark, "circle", { class: `live-${kind}`, cx: 14, cy: 6, r: 5 });
      else if (kind.endsWith("-band")) svg(mark, "rect", { class: `live-${kind}`, x: 1, y: 1, width: 26, height: 10 });
      else svg(mark, "line", { class: `live-${kind}`, x1: 1, x2: 27, y1: 6, y2: 6 });
      html(item, "span", "", text);
    }
  }

  /* The result: shown at once, read out when the sliders have come to rest. */
  function result(parent) {
    const seen = html(parent, "p", "live-result");
    seen.setAttribute("aria-hidden", "true");
    const heard = html(parent, "p", "live-heard");
    heard.setAttribute("aria-live", "polite");
    let timer = 0;
    return (text, first) => {
      seen.textContent = text;
      window.clearTimeout(timer);
      timer = window.setTimeout(() => { heard.textContent = text; }, first ? 0 : 400);
    };
  }

  function listen(inputs, redraw) {
    const all = (event) => {
      inputs.forEach((input) => input.refresh());
      redraw(event === undefined);
    };
    inputs.forEach((input) => input.addEventListener("input", all));
    all();
    return all;
  }

  /* 3 The three figures ------------------------------------------------------------- */

  function innerRate(box) {
    const c = curvature(INNER);
    // The frame is square, so that a circle stays a circle.
    const p = plot(box.drawing, {
      width: 420, height: 416, x: [-2, 2, [-2, -1, 0, 1, 2], "weight of the constant (her bias)"],
      y: [-0.8, 3.2, [0, 1, 2, 3], "weight of the trait"],
      title: "Contours of the loss over two weights, and the path of the inner loop from zero",
    });
    const scale = p.toX(1) - p.toX(0);
    const [cx, cy] = [p.toX(c.minimum[0]), p.toY(c.minimum[1])];
    for (const level of [0.1, 0.4, 0.9, 1.6, 2.5, 3.6, 6.4, 10, 14.4, 19.6]) {
      svg(p.back, "ellipse", {
        class: "live-contour", cx, cy,
        rx: scale * Math.sqrt(2 * level / c.large), ry: scale * Math.sqrt(2 * level / c.small),
        transform: `rotate(${-c.angle * 180 / Math.PI} ${cx} ${cy})`,
      });
    }
    const cross = `M${cx - 6} ${cy - 6}l12 12M${cx - 6} ${cy + 6}l12 -12`;
    const path = svg(p.front, "path", { class: "live-blue-line" });
    const dots = svg(p.front, "g");
    svg(p.front, "path", { class: "live-cross", d: cross });
    const flag = svg(p.front, "g");
    legend(box.drawing, [["blue-line", "path from zero, a dot for each step"], ["contour", "lines of equal loss; the cross is the minimum"]]);
    const limit = 2 / c.large;
    const rate = slider(box.controls, {
      label: "inner rate \u03b1", min: 0, max: 0.36, step: 0.005, value: 0.06, say: (v) => shown(v, 3),
    });
    const steps = slider(box.controls, {
      label: "steps T", min: 0, max: 30, step: 1, value: 5, say: (v) => String(v),
    });
    const tell = result(box.controls);
    listen([rate, steps], (first) => {
      const found = innerPath(INNER, Number(rate.value), Number(steps.value));
      const last = found[found.length - 1];
      const loss = innerLoss(INNER, last);
      path.setAttribute("d", line(found, p));
      dots.replaceChildren();
      found.forEach((w, i) => svg(dots, "circle", {
        class: i === 0 ? "live-start-dot" : "live-blue-dot",
        cx: p.toX(w[0]), cy: p.toY(w[1]), r: i === 0 || i === found.length - 1 ? 6 : 3.5,
      }));
      const speed = Number(rate.value) * c.large;
      const left = found.findIndex((w) => !p.holds(w));
      let verdict = "each step goes part of the way in every direction";
      if (speed > 2) verdict = "above 2, so it diverges: in the steep direction every step overshoots further";
      else if (speed > 1) verdict = "between 1 and 2, so the path swings across the valley and still closes in";
      if (speed === 0) verdict = "nothing moves";
      const outside = left < 0 ? "" : ` Step ${left} is the first outside the picture.`;
      flag.replaceChildren();
      if (speed > 2 && found.length > 1) svg(flag, "text", { class: "live-flag", x: p.toX(-1.9), y: p.toY(2.9) }, "diverges");
      box.root.dataset.result = JSON.stringify({ path: last, loss, limit });
      tell(`Loss ${shown(innerLoss(INNER, [0, 0]), 2)} before, ${loss < 100 ? shown(loss, 2) : "over 100"} after. `
        + `The limit 2/\u03bbmax is ${shown(limit, 3)}. \u03b1\u03bbmax is ${shown(speed, 2)}: ${verdict}.${outside}`, first);
    });
  }

  function priorVariance(box) {
    const p = plot(box.drawing, {
      width: 460, height: 340, x: [0, 15, [0, 3, 6, 9, 12, 15], "ratings, K"],
      y: [-1.5, 3, [-1, 0, 1, 2, 3], "taste for the trait"],
      title: "Posterior mean and band of one taste against the number of ratings",
    });
    const band = svg(p.back, "path", { class: "live-amber-band" });
    svg(p.back, "path", { class: "live-truth-line", d: line([[0, PRIOR.taste], [15, PRIOR.taste]], p) });
    const alone = svg(p.back, "path", { class: "live-soft-line" });
    const mean = svg(p.front, "path", { class: "live-amber-line" });
    const here = svg(p.front, "path", { class: "live-here" });
    const dot = svg(p.front, "circle", { class: "live-amber-dot", r: 6 });
    legend(box.drawing, [
      ["amber-line", "posterior mean"], ["amber-band", "two standard deviations either way"],
      ["soft-line", "the ratings alone, no prior"], ["truth-line", "the true taste"],
    ]);
    const width = slider(box.controls, {
      label: "prior variance \u03c4\u00b2", min: -2, max: 1, step: 0.05, value: -0.5, say: (v) => shown(10 ** v, 10 ** v < 0.1 ? 3 : 2),
    });
    const count = slider(box.controls, {
      label: "ratings K", min: 0, max: 15, step: 1, value: 1, say: (v) => String(v),
    });
    const tell = result(box.controls);
    listen([width, count], (first) => {
      const variance = 10 ** Number(width.value);
      const k = Number(count.value);
      const found = posteriors(PRIOR, Math.sqrt(variance));
      const upper = found.map((one, i) => [i, one.mean + 2 * one.sd]);
      const lower = found.map((one, i) => [i, one.mean - 2 * one.sd]).reverse();
      band.setAttribute("d", `${line(upper.concat(lower), p)}Z`);
      mean.setAttribute("d", line(found.map((one, i) => [i, one.mean]), p));
      alone.setAttribute("d", line(found.slice(1).map((one, i) => [i + 1, one.alone]), p));
      here.setAttribute("d", line([[k, -1.5], [k, 3]], p));
      dot.setAttribute("cx", p.toX(k));
      dot.setAttribute("cy", p.toY(found[k].mean));
      const { mean: m, sd } = found[k];
      const share = 1 - (sd * sd) / variance;
      box.root.dataset.result = JSON.stringify({ mean: m, sd, alone: found[k].alone });
      const beside = k === 0 ? "No rating yet: this is the prior."
        : `The ratings alone say ${shown(found[k].alone, 2)}; they have removed ${Math.round(100 * share)}% of the prior variance.`;
      tell(`K = ${k}: taste ${shown(m, 2)}, band from ${shown(m - 2 * sd, 2)} to ${shown(m + 2 * sd, 2)}. ${beside}`, first);
    });
  }

  function taskAttention(box) {
    const wide = html(box.drawing, "div", "live-two");
    const axis = [-1.2, 1.2, [-1, 0, 1]];
    const left = plot(html(wide, "div"), {
      width: 320, height: 320, x: [...axis, "task code, trait 1"], y: [...axis, "task code, trait 2"],
      title: "The task's code among the directions of three keys",
    });
    const right = plot(html(wide, "div"), {
      width: 320, height: 320, x: [...axis, "start, trait 1"], y: [...axis, "start, trait 2"],
      title: "The start of the task within the triangle of the three shifts",
    });
    const colours = ["blue", "amber", "green"];
    const spokes = SLOTS.keys.map((key, m) => {
      const along = [key[0] / 4, key[1] / 4];
      svg(left.back, "path", { class: `live-${colours[m]}-spoke`, d: line([[0, 0], along], left) });
      const beside = [left.toX(along[0] * 0.6) + (m === 2 ? -8 : 8), left.toY(along[1] * 0.6) + (m ? 18 : 0)];
      const anchor = m === 2 ? "end" : "start";
      svg(left.root, "text", { class: "live-name", x: beside[0], y: beside[1], "text-anchor": anchor }, `key ${m + 1}`);
      return svg(right.front, "path", { class: `live-${colours[m]}-spoke` });
    });
    svg(right.back, "path", { class: "live-triangle", d: `${line(SLOTS.deltas, right)}Z` });
    SLOTS.deltas.forEach((delta, m) => {
      svg(right.back, "circle", { class: `live-${colours[m]}-dot`, cx: right.toX(delta[0]), cy: right.toY(delta[1]), r: 6 });
      const place = { class: "live-name", x: right.toX(delta[0]), y: right.toY(delta[1]) + 22, "text-anchor": "middle" };
      if (m === 0) Object.assign(place, { x: place.x + 12, y: place.y - 17, "text-anchor": "start" });
      svg(right.root, "text", place, `start ${m + 1}`);
    });
    const code = svg(left.front, "circle", { class: "live-code-dot", r: 9 });
    const handle = svg(left.front, "circle", { class: "live-handle", r: 26 });
    const start = svg(right.front, "circle", { class: "live-code-dot", r: 7 });
    const bars = html(box.drawing, "ul", "live-bars");
    const fills = colours.map((colour, m) => {
      const item = html(bars, "li");
      html(item, "span", "", `weight ${m + 1}`);
      const fill = html(html(item, "span", "live-rail"), "span", `live-fill-${colour}`);
      return { fill, number: html(item, "span", "live-number") };
    });
    const say = (v) => shown(v, 2);
    const options = { min: -1, max: 1, step: 0.02, value: 0, say };
    const first = slider(box.controls, { label: "code, trait 1", ...options });
    const second = slider(box.controls, { label: "code, trait 2", ...options });
    const tell = result(box.controls);
    const redraw = listen([first, second], (begin) => {
      const at = [Number(first.value), Number(second.value)];
      const { weights, start: found } = attend(SLOTS, at);
      for (const circle of [code, handle]) {
        circle.setAttribute("cx", left.toX(at[0]));
        circle.setAttribute("cy", left.toY(at[1]));
      }
      start.setAttribute("cx", right.toX(found[0]));
      start.setAttribute("cy", right.toY(found[1]));
      weights.forEach((a, m) => {
        spokes[m].setAttribute("d", line([found, SLOTS.deltas[m]], right));
        spokes[m].style.strokeWidth = `${0.5 + 5 * a}px`;
        fills[m].fill.style.width = `${100 * a}%`;
        fills[m].number.textContent = shown(a, 2);
      });
      box.root.dataset.result = JSON.stringify({ weights, start: found });
      const empty = at[0] === 0 && at[1] === 0 ? " The code is empty, as without ratings: the start for everybody." : "";
      tell(`Weights ${weights.map((a) => shown(a, 2)).join(", ")}. The task starts at `
        + `(${shown(found[0], 2)}, ${shown(found[1], 2)}).${empty}`, begin);
    });

    /* The code can be dragged; the sliders do the same from the keyboard. */
    function move(event) {
      const matrix = left.root.getScreenCTM().inverse();
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix);
      const unit = left.toX(1) - left.toX(0);
      first.value = (point.x - left.toX(0)) / unit;
      second.value = (left.toY(0) - point.y) / (left.toY(0) - left.toY(1));
      redraw(event);
    }
    left.root.classList.add("live-drag");
    left.root.addEventListener("pointerdown", (event) => {
      // A finger beside the code scrolls the page.
      if (event.pointerType === "touch" && event.target !== handle) return;
      left.root.setPointerCapture(event.pointerId);
      move(event);
    });
    left.root.addEventListener("pointermove", (event) => {
      if (left.root.hasPointerCapture(event.pointerId)) move(event);
    });
  }

  const FIGURES = {
    "live-inner-rate": [innerRate, "Rate and steps of the inner loop"],
    "live-prior-variance": [priorVariance, "A prior and what ratings make of it"],
    "live-task-attention": [taskAttention, "Attention between tasks"],
  };

  function build() {
    for (const [name, [draw, title]] of Object.entries(FIGURES)) {
      for (const root of document.querySelectorAll(`.${name}`)) {
        const body = html(root, "div", "live-body");
        body.setAttribute("role", "group");
        body.setAttribute("aria-label", title);
        draw({ root, drawing: html(body, "div", "live-drawing"), controls: html(body, "div", "live-controls") });
        root.classList.add("is-live");
      }
    }
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", build);
  else build();
}());
