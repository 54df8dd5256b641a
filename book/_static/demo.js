/*
 * "Teach it your taste": the page's mathematics and its controls.
 *
 *  1 mathematics: pure functions of the exported model (window.METAREC_DEMO)
 *  2 drawing      3 controls      4 what happens on a click
 *
 * A model holds q_i (`factors`), offsets, where gradient descent starts (`descent`), the
 * prior of the Bayesian, the films' names, and what makes `lists`: another system with
 * tables of its own. A rating is a pair [film, stars], a film a place in the model's
 * tables. tests/test_demo.py compares part 1 with metarec.
 */
(function () {
  "use strict";

  /* 1 Mathematics ------------------------------------------------------------------- */

  function dot(a, b) {
    let sum = 0;
    for (let d = 0; d < a.length; d += 1) sum += a[d] * b[d];
    return sum;
  }

  function times(matrix, vector) {
    return matrix.map((row) => dot(row, vector));
  }

  /* phi_i = [q_i, 1]: the 1 meets the user's bias. */
  function features(model, film) {
    return model.factors[film].concat(1);
  }

  /* offset_i + phi_i . w, in stars. */
  function score(model, film, w) {
    return model.offset[film] + dot(features(model, film), w);
  }

  /*
   * w <- w - rate * grad L(w), `steps` times from `start`: all the weights on the way,
   * the start first. L is half the sum of squared errors, or their mean if `average`.
   */
  function descend(model, ratings, options) {
    const path = [options.start];
    const rate = options.average ? options.rate / Math.max(ratings.length, 1) : options.rate;
    for (let step = 0; step < options.steps; step += 1) {
      const w = path[step];
      const next = w.slice();
      for (const [film, stars] of ratings) {
        const phi = features(model, film);
        const error = score(model, film, w) - stars;
        for (let d = 0; d < w.length; d += 1) next[d] -= rate * error * phi[d];
      }
      path.push(next);
    }
    return path;
  }

  /* One more rating, by the rank-one formula: m + g e and C - g (C phi)'. */
  function update(model, belief, film, stars) {
    const phi = features(model, film);
    const cPhi = times(belief.covariance, phi);
    const gain = cPhi.map((c) => c / (model.prior.noise + dot(phi, cPhi)));
    const error = stars - score(model, film, belief.mean);
    return {
      mean: belief.mean.map((m, d) => m + gain[d] * error),
      covariance: belief.covariance.map((row, i) => row.map((c, j) => c - gain[i] * cPhi[j])),
    };
  }

  /* The posterior N(mean, covariance) of w after all ratings; without any, the prior. */
  function posterior(model, ratings) {
    const prior = { mean: model.prior.mean, covariance: model.prior.covariance };
    return ratings.reduce((belief, [film, stars]) => update(model, belief, film, stars), prior);
  }

  /* Standard deviation of a film's score, sqrt(phi' C phi). */
  function deviation(model, belief, film) {
    const phi = features(model, film);
    return Math.sqrt(Math.max(0, dot(phi, times(belief.covariance, phi))));
  }

  /* Variance of the score, averaged over all films. */
  function averageVariance(model, belief) {
    const total = model.factors.reduce((sum, _, film) => sum + deviation(model, belief, film) ** 2, 0);
    return total / model.factors.length;
  }

  /*
   * Which of `candidates` to ask about: the film whose rating takes most from the
   * variances of all films. One rating takes (phi_j' C phi_i)^2 / (sigma^2 + phi_i' C phi_i)
   * from film j's, whatever the answer is. `fall` is the mean of that over j.
   */
  function nextQuestion(model, belief, candidates) {
    const target = gram(model);
    let best = { film: -1, fall: -1 };
    for (const film of candidates) {
      const phi = features(model, film);
      const cPhi = times(belief.covariance, phi);
      const all = dot(cPhi, times(target, cPhi)) / (model.prior.noise + dot(phi, cPhi));
      const fall = all / model.factors.length;
      if (fall > best.fall) best = { film, fall };
    }
    return best;
  }

  /* sum_j phi_j phi_j' over all films, computed once for a model. */
  const grams = new WeakMap();
  function gram(model) {
    if (!grams.has(model)) {
      const size = model.prior.mean.length;
      const sum = Array.from({ length: size }, () => new Array(size).fill(0));
      model.factors.forEach((_, film) => {
        const phi = features(model, film);
        phi.forEach((a, i) => phi.forEach((b, j) => { sum[i][j] += a * b; }));
      });
      grams.set(model, sum);
    }
    return grams.get(model);
  }

  /* The tables of the lists hold whole numbers of hundredths, their network thousandths. */
  const [TABLE, LAYER] = [0.01, 0.001];

  /* log p(i) of all films, a softmax of offset_i + phi_i . w. */
  function logShares(model, w) {
    const { factors, offset } = model.lists;
    const scores = factors.map((phi, film) => offset[film] + TABLE * dot(phi, w));
    const most = Math.max(...scores);
    const total = scores.reduce((sum, one) => sum + Math.exp(one - most), 0);
    return scores.map((one) => one - most - Math.log(total));
  }

  /*
   * The learner of the lists: the head of whoever gave these K ratings, by a network that
   * reads them as a set (metarec's InContext). A token for each: what its film says, its
   * offset and its stars. Tokens pass a layer and are added, times K^-1/4 (beyond the
   * K of training, 1 / K). The answer: how far to go along the slope of the likes'
   * log-likelihood, and what to add to it.
   */
  function listHead(model, ratings) {
    const { bias, factors, first, inputs, last, most, offset, scale, start } = model.lists;
    const share = Math.min(ratings.length, most) ** 0.75 / Math.max(ratings.length, 1);
    const middle = offset.reduce((a, b) => a + b) / offset.length;
    const levels = Array.from({ length: model.high - model.low + 1 }, (_, n) => model.low + n);
    const likes = ratings.filter(([, stars]) => stars >= model.like);
    const expected = logShares(model, start).map((log) => likes.length * Math.exp(log));
    likes.forEach(([film]) => { expected[film] -= 1; });
    const slope = start.map((_, d) => -scale * share * TABLE
      * factors.reduce((sum, phi, film) => sum + expected[film] * phi[d], 0));
    const read = bias.map(() => 0);
    for (const [film, stars] of ratings) {
      const token = [...inputs[film].map((one) => TABLE * one), offset[film] - middle,
        ...levels.map((level) => Number(level === stars))];
      times(first, token).forEach((one, h) => { read[h] += share * Math.max(0, LAYER * one + bias[h]); });
    }
    const answer = times(last, [...read, ...slope]).map((one) => LAYER * one);
    return start.map((m, d) => m + Math.exp(answer[d]) * slope[d] + scale * answer[start.length + d]);
  }

  /* log p(i | user) - surprise * log p(i) of all films: what everybody likes counts less. */
  function listScores(model, ratings, surprise) {
    const everybody = logShares(model, listHead(model, []));
    return logShares(model, listHead(model, ratings)).map((log, film) => log - surprise * everybody[film]);
  }

  /* The `n` films with the highest of these scores that are not in `seen` (a Set). */
  function rank(scores, seen, n) {
    const unseen = scores.map((_, film) => film).filter((film) => !seen.has(film));
    unseen.sort((a, b) => scores[b] - scores[a] || a - b);
    return unseen.slice(0, n);
  }

  /* Half the sum of squared errors. */
  function loss(model, ratings, w) {
    return ratings.reduce((sum, [film, stars]) => sum + 0.5 * (score(model, film, w) - stars) ** 2, 0);
  }

  window.metarecDemo = {
    averageVariance, descend, deviation, listHead, listScores, logShares, loss, nextQuestion,
    posterior, rank, score, update,
  };

  /* 2 Drawing ----------------------------------------------------------------------- */

  const model = window.METAREC_DEMO;
  const page = document.getElementById("demo");
  if (!model || !page) return;

  const LISTED = 10;
  const ASKED = 100; // questions come from the most rated films: few have seen the others
  const STAR = "M12 2.5l2.9 6.2 6.6.8-4.9 4.6 1.3 6.7L12 17.5l-5.9 3.3 1.3-6.7L2.5 9.5l6.6-.8z";
  const part = (name) => document.getElementById(`demo-${name}`);
  const clip = (stars) => Math.min(model.high, Math.max(model.low, stars));
  const shown = (stars) => clip(stars).toFixed(1);
  const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;

  function name(film) {
    return `${model.films[film].title} (${model.films[film].year})`;
  }

  /* An element with attributes; strings among the children become text, never markup. */
  function make(tag, attributes, ...children) {
    const svg = ["svg", "path", "line", "circle", "rect", "text", "title", "desc", "g"].includes(tag);
    const made = svg
      ? document.createElementNS("http://www.w3.org/2000/svg", tag)
      : document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function star() {
    return make("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, make("path", { d: STAR }));
  }

  function hidden(text) {
    return make("span", { class: "demo-sr" }, text);
  }

  function mark(way, x, y, r) {
    if (way === "descent") return make("circle", { class: "is-descent", cx: x, cy: y, r });
    if (way === "bayes") return make("rect", { class: "is-bayes", x: x - r, y: y - r, width: 2 * r, height: 2 * r });
    return make("path", { class: "is-plain", d: `M${x} ${y - r - 1}l${r + 1} ${r + 1}l${-r - 1} ${r + 1}l${-r - 1} ${-r - 1}z` });
  }

  /* Three lanes for each film: the steps from theta_0, the posterior, the zero start. */
  function drawChart(now) {
    const holder = part("chart");
    const width = Math.max(280, holder.clientWidth);
    const [left, top, film, lane] = [12, 6, 62, 13];
    const height = top + film * model.shown.length + 30;
    const [low, high] = [model.low - 0.4, model.high + 0.6];
    const at = (stars) => left + (Math.min(high, Math.max(low, stars)) - low) / (high - low) * (width - 2 * left);
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-labelledby": "demo-chart-title" });
    svg.append(make("title", { id: "demo-chart-title" }, "Predicted stars of six films; the table below holds the same numbers"));
    for (let stars = model.low; stars <= model.high; stars += 1) {
      svg.append(make("line", { class: "grid", x1: at(stars), x2: at(stars), y1: top, y2: height - 26 }));
      svg.append(make("text", { class: "tick", x: at(stars), y: height - 8 }, plural(stars, "star")));
    }
    model.shown.forEach((one, row) => {
      const y = top + film * row;
      svg.append(make("text", { class: "film", x: left, y: y + 13 }, model.films[one].title));
      drawSteps(svg, "descent", now.descent.map((w) => at(score(model, one, w))), y + 13 + lane);
      const mean = score(model, one, now.belief.mean);
      const sd = deviation(model, now.belief, one);
      const rating = Math.sqrt(sd * sd + model.prior.noise);
      const level = y + 13 + 2 * lane;
      svg.append(make("line", { class: "bar thin", x1: at(mean - rating), x2: at(mean + rating), y1: level, y2: level }));
      svg.append(make("line", { class: "bar", x1: at(mean - sd), x2: at(mean + sd), y1: level, y2: level }));
      svg.append(mark("bayes", at(mean), level, 4.5));
      drawSteps(svg, "plain", now.plain.map((w) => at(score(model, one, w))), y + 13 + 3 * lane);
    });
    holder.replaceChildren(svg);
  }

  function drawSteps(svg, way, places, y) {
    const last = places[places.length - 1];
    svg.append(make("line", { class: `trail is-${way}`, x1: places[0], x2: last, y1: y, y2: y }));
    places.slice(0, -1).forEach((x) => svg.append(make("circle", { class: `step is-${way}`, cx: x, cy: y, r: 2 })));
    svg.append(mark(way, last, y, 5));
  }

  function drawTable(now) {
    const rows = model.shown.map((film) => make("tr", {},
      make("th", { scope: "row" }, name(film)),
      make("td", {}, shown(score(model, film, now.weights.descent))),
      make("td", {}, shown(score(model, film, now.weights.bayes))),
      make("td", {}, deviation(model, now.belief, film).toFixed(2)),
      make("td", {}, shown(score(model, film, now.weights.plain)))));
    part("table").replaceChildren(...rows);
  }

  /* How a film moved since the last list: places up, places down, or new on it. */
  function moved(before, film, place) {
    if (!before) return make("span", { class: "demo-move" });
    const old = before.indexOf(film);
    if (old === place) return make("span", { class: "demo-move" });
    if (old < 0) return make("span", { class: "demo-move is-new" }, "new");
    const up = old > place;
    const by = Math.abs(old - place);
    return make("span", { class: `demo-move ${up ? "is-up" : "is-down"}` },
      make("span", { "aria-hidden": "true" }, `${up ? "\u25B2" : "\u25BC"}\u202F${by}`),
      hidden(`${up ? "up" : "down"} ${by}`));
  }

  /* Beside each film the stars that Bayes expects: another question than the list's. */
  function drawLists(now, before) {
    for (const [way, films] of Object.entries(now.lists)) {
      const old = before && before.lists[way].length ? before.lists[way] : null;
      const items = films.map((film, place) => make("li", {},
        make("span", { class: "demo-place", "aria-hidden": "true" }, String(place + 1)),
        make("span", { class: "demo-name", title: name(film) }, model.films[film].title),
        make("span", { class: "demo-genres" }, model.films[film].genres),
        make("span", { class: "demo-stars-said" }, shown(score(model, film, now.belief.mean)), star(), hidden("stars expected")),
        moved(old, film, place)));
      part(`list-${way}`).replaceChildren(...items);
      part(`list-${way}`).hidden = !items.length;
    }
    part("yours-waits").hidden = now.lists.yours.length > 0;
  }

  /* 3 Controls ---------------------------------------------------------------------- */

  const ratings = new Map(); // film -> stars, in the order they were given
  const skipped = new Set();
  let question = -1;
  let before = null;

  /* A film with five stars to choose from: radio buttons, so that arrow keys work. */
  function filmRow(film) {
    const about = model.films[film];
    const stars = make("div", { class: "demo-stars", role: "radiogroup", "aria-label": `Your stars for ${name(film)}` });
    for (let n = model.low; n <= model.high; n += 1) {
      const id = `demo-${film}-${n}`;
      const input = make("input", { type: "radio", id, name: `demo-${film}`, value: n });
      input.addEventListener("change", () => rate(film, n));
      stars.append(input, make("label", { for: id, title: plural(n, "star") }, star(), hidden(plural(n, "star"))));
    }
    const clear = make("button", { type: "button", class: "demo-clear", "aria-label": `Take back the stars for ${name(film)}` }, "\u00D7");
    clear.addEventListener("click", () => {
      row.querySelector("input").focus();
      rate(film, 0);
    });
    const row = make("li", { class: "demo-film", "data-film": film, "data-stars": 0 },
      make("span", { class: "demo-title" }, about.title, make("span", { class: "demo-year" }, ` ${about.year}`),
        make("span", { class: "demo-genres" }, about.genres)),
      stars, clear);
    return row;
  }

  function rowOf(film) {
    return page.querySelector(`.demo-film[data-film="${film}"]`);
  }

  function addRow(film) {
    if (!rowOf(film)) part("added").append(filmRow(film));
    return rowOf(film);
  }

  function showRatings() {
    for (const row of page.querySelectorAll(".demo-film")) {
      const stars = ratings.get(Number(row.dataset.film)) || 0;
      row.dataset.stars = stars;
      row.querySelectorAll("input").forEach((input) => { input.checked = Number(input.value) === stars; });
    }
    part("count").textContent = plural(ratings.size, "rating");
  }

  /* The search box: up to six titles that hold the words. */
  function search() {
    const words = part("search").value.trim().toLowerCase();
    const found = words.length < 2 ? [] : model.films
      .map((about, film) => [`${about.title} ${about.year}`.toLowerCase(), film])
      .filter(([text]) => words.split(/\s+/).every((word) => text.includes(word)))
      .slice(0, 6);
    const buttons = found.map(([, film]) => {
      const button = make("button", { type: "button" }, name(film));
      button.addEventListener("click", () => {
        closeSearch();
        addRow(film).querySelector("input").focus();
      });
      return make("li", {}, button);
    });
    part("found").replaceChildren(...buttons);
    part("found").hidden = !buttons.length;
    part("found-says").textContent = words.length < 2 ? "" : `${plural(found.length, "film")} found`;
  }

  function closeSearch() {
    part("search").value = "";
    search();
  }

  /* What to ask: the most rated films that are neither rated nor set aside. */
  function ask(belief) {
    const open = model.films.map((_, film) => film).slice(0, ASKED)
      .filter((film) => !ratings.has(film) && !skipped.has(film) && !model.shown.includes(film));
    const best = nextQuestion(model, belief, open);
    question = best.film;
    const share = 100 * best.fall / averageVariance(model, belief);
    part("question").textContent = question < 0 ? "" : name(question);
    part("question-genres").textContent = question < 0 ? "" : model.films[question].genres;
    part("question-worth").textContent = question < 0
      ? "You have answered or set aside all that it would ask."
      : `Your answer, whatever it is, takes ${share.toFixed(1)}% from the average variance of all films' scores.`;
    part("answers").querySelectorAll("button[data-stars]").forEach((button) => {
      button.disabled = question < 0;
      button.setAttribute("aria-label", `${plural(Number(button.dataset.stars), "star")} for ${part("question").textContent}`);
    });
    part("skip").disabled = question < 0;
  }

  function buildAnswers() {
    for (let n = model.low; n <= model.high; n += 1) {
      const button = make("button", { type: "button", "data-stars": n }, String(n), star());
      button.addEventListener("click", () => {
        if (question < 0) return;
        const film = question;
        addRow(film);
        rate(film, n);
      });
      part("answers").append(button);
    }
  }

  /* 4 What happens on a click ------------------------------------------------------- */

  function rate(film, stars) {
    const known = ratings.has(film);
    if (stars) ratings.set(film, stars);
    else ratings.delete(film);
    const did = stars
      ? `${known ? "Changed" : "Rated"} ${model.films[film].title}: ${plural(stars, "star")}.`
      : `Took back ${model.films[film].title}.`;
    refresh(did);
  }

  function mira() {
    ratings.clear();
    for (const [film, stars] of model.mira) {
      addRow(film);
      ratings.set(film, stars);
    }
    refresh("Mira's ten ratings are filled in.");
  }

  function reset() {
    ratings.clear();
    skipped.clear();
    part("added").replaceChildren();
    part("steps").value = model.descent.steps;
    before = null;
    refresh("All ratings are taken back.");
  }

  /* All that the page shows follows from the ratings and T. */
  function compute() {
    const given = [...ratings];
    const steps = Number(part("steps").value);
    const descent = descend(model, given, { ...model.descent, steps });
    const zero = descend(model, given, { ...model.plain, steps, average: true });
    const belief = posterior(model, given);
    const weights = { descent: descent[steps], bayes: belief.mean, plain: zero[steps] };
    const seen = new Set(ratings.keys());
    const list = (surprise) => rank(listScores(model, given, surprise), seen, LISTED);
    const lists = { bets: list(0), yours: given.length ? list(1) : [] };
    const overshoots = loss(model, given, weights.descent) > loss(model, given, model.descent.start) + 1e-9;
    return { given, steps, descent, plain: zero, belief, weights, lists, overshoots };
  }

  function refresh(did) {
    const now = compute();
    showRatings();
    part("steps-said").textContent = `T = ${now.steps}`;
    drawChart(now);
    drawTable(now);
    drawLists(now, before);
    ask(now.belief);
    say(now, did);
    before = now;
    return now;
  }

  /* A few sentences, which a screen reader reads out. */
  function say(now, did) {
    const bar = (belief) => {
      const all = model.shown.map((film) => deviation(model, belief, film));
      return (all.reduce((a, b) => a + b) / all.length).toFixed(2);
    };
    const bars = now.given.length ? `from ${bar(model.prior)} to ${bar(now.belief)}` : bar(model.prior);
    const [bet, own] = [now.lists.bets[0], now.lists.yours[0]];
    const most = own === undefined ? "" : `Most yours: ${name(own)}. `;
    const over = now.overshoots ? " With so many ratings the steps of the learned rate are too long." : "";
    part("says").textContent = `${did ? `${did} ` : ""}Error bars: ${bars} stars on average. `
      + `${most}Best bet: ${name(bet)}.${over}`;
    part("peek-says").textContent = `${plural(now.given.length, "rating")}. ${most || `Best bet: ${name(bet)}`}`;
  }

  function choose(way) {
    part("lists").dataset.shown = way;
  }

  function start() {
    part("starters").append(...model.starters.map(filmRow));
    buildAnswers();
    part("mira").addEventListener("click", mira);
    part("reset").addEventListener("click", reset);
    part("steps").addEventListener("input", () => refresh(""));
    part("search").addEventListener("input", search);
    part("search").addEventListener("keydown", (event) => {
      const one = part("found").querySelector("button");
      if (event.key === "Escape") closeSearch();
      if (event.key === "ArrowDown" && one) {
        event.preventDefault();
        one.focus();
      }
      if (event.key === "Enter") {
        event.preventDefault();
        if (one) one.click();
      }
    });
    part("found").addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      closeSearch();
      part("search").focus();
    });
    part("skip").addEventListener("click", () => {
      skipped.add(question);
      refresh(`Set aside ${model.films[question].title}.`);
    });
    page.querySelectorAll("input[name=demo-list]").forEach((input) => {
      input.addEventListener("change", () => choose(input.value));
    });
    let width = 0;
    new ResizeObserver(() => {
      if (part("chart").clientWidth === width) return;
      width = part("chart").clientWidth;
      drawChart(compute());
    }).observe(part("chart"));
    new IntersectionObserver((seen) => {
      page.querySelector(".demo-peek").classList.toggle("is-away", seen.at(-1).isIntersecting);
    }).observe(part("lists"));
    part("citation").textContent = model.citation;
    refresh("");
    page.classList.add("is-ready");
  }

  start();
}());
