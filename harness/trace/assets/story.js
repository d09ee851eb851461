"use strict";
// One failure: what happened, the interleaving with the film beside it, the pair that decides, the
// lock graph. The slider, the keyboard, the lanes and the film all move one cursor.

const FOLD_FROM = 40;

class Story {
  constructor(data) {
    this.data = data;
    this.runs = data.runs.map((run) => new Run(run, data));
    this.lanes = new Lanes((step) => this.moveTo(step));
    this.overview = new Overview((step) => this.moveTo(step));
    this.film = new Film((step) => this.moveTo(step));
    this.cursor = el("div", { class: "panel cursor", role: "region", "aria-label": "the step at the cursor" });
    this.said = el("output", { id: "said", "aria-live": "polite" });
    this.slider = el("input", { type: "range", id: "slider", "aria-label": "step", min: 0,
      oninput: () => this.moveTo(Number(this.slider.value)) });
    this.fold = el("button", { type: "button", title: "hide runs of steps in which nothing switches (f)",
      onclick: () => this.toggleFold() }, "fold quiet steps");
    this.choice = this.runs.map((run, at) =>
      el("button", { type: "button", class: "choice", onclick: () => this.choose(at) }, run.label));
    this.node = el("article", {}, [this.head(), ...this.interleaving(), this.pair(), this.graph(), this.plain()]);
    this.folded = this.runs[0].steps.length > FOLD_FROM;
    this.choose(0);
  }

  head() {
    const { data } = this;
    const copy = el("button", { type: "button", onclick: () => {
      navigator.clipboard?.writeText(data.command);
      copy.textContent = "copied";
    } }, "copy");
    return el("header", {}, [
      el("h1", {}, [el("span", { class: data.kind ? "bad" : "good" },
        data.kind ? `✗ ${data.kind}` : "✓ no failure"), ` in ${data.title}`]),
      el("div", { class: "facts" }, data.facts.map(([name, value]) =>
        el("span", {}, [`${name} `, el("b", {}, value)]))),
      this.happened(),
      data.command ? el("div", { class: "command panel" },
        ["replay it: ", el("code", { title: data.command }, data.command), copy]) : null,
    ]);
  }

  // The failure in words, before any picture.
  happened() {
    const { data } = this;
    const lines = data.cycle.map((wait) => el("li", {}, [
      el("b", {}, wait.thread), " waits for ", el("b", {}, wait.wants),
      wait.holder === wait.wants ? "" : [", held by ", el("b", {}, wait.holder)],
      el("div", { class: "quiet mono" }, `wanted at ${wait.at || "an unknown place"}`
        + (wait.since ? `; taken at ${wait.since}` : "")),
    ].flat()));
    if (lines.length) return el("ol", { class: "happened" }, lines);
    // A finding of the lock rules begins with the message.
    const texts = data.findings.length ? data.findings : [data.message].filter(Boolean);
    return el("div", {}, [
      ...texts.map((text) => el("pre", { class: "happened" }, text)),
      data.exception ? el("details", {}, [el("summary", {}, "traceback"), el("pre", {}, data.exception)]) : null,
    ]);
  }

  interleaving() {
    if (!this.runs[0].steps.length) return [];
    const go = (text, title, by) =>
      el("button", { type: "button", title, "aria-label": title, onclick: () => this.go(by) }, text);
    return [
      el("h2", {}, "The interleaving"),
      el("div", { class: "bar" }, [
        go("|◀", "the first step (Home)", "first"), go("◀", "one step back (←)", -1),
        go("▶", "one step on (→)", 1), go("▶|", "the end (End)", "last"),
        go("◀◀", "the switch before (p)", "before"), go("▶▶", "the next switch (n)", "next"),
        this.slider, this.said, this.fold,
        ...(this.runs.length > 1 ? this.choice : []),
      ]),
      this.overview.node,
      el("div", { class: "two" }, [
        el("div", {}, [this.lanes.locks, this.lanes.node, legend()]),
        el("div", { class: "side" }, [this.film.node, this.cursor]),
      ]),
    ];
  }

  // The failing order and the other one beside each other, around the two steps that decide.
  pair() {
    const { pair } = this.data;
    if (!pair || this.runs.length < 2) return null;
    const [bad, good] = this.runs.slice(-2);
    const cell = (run, number) => {
      const row = number <= run.last ? run.step(number) : null;
      if (!row) return el("span", { class: "quiet" }, number === run.last + 1 ? (run.kind ? `✗ ${run.kind}` : "✓ ends") : "");
      const button = el("button", { type: "button", title: this.where(row[4]), onclick: () => {
        this.choose(this.runs.indexOf(run));
        this.moveTo(number);
      } }, `${run.threads[row[0]][1]}: ${run.operation(row)}`);
      button.style.borderColor = threadColor(row[0]);
      return button;
    };
    const rows = [];
    const from = Math.max(bad.first, bad.first + pair.at - 3);
    for (let n = from; n <= bad.first + pair.at + 9; n += 1) {
      if (n > bad.last + 1 && n > good.last + 1) break;
      const decides = n === bad.first + pair.at || n === bad.first + pair.at + 1;
      rows.push({ kind: decides ? "pair" : n < bad.first + pair.at ? "common" : null,
        cells: [n, decides ? "◆" : "", cell(bad, n), cell(good, n)] });
    }
    return section("The two steps whose order decides", [
      el("p", { class: "quiet" }, pair.passes
        ? "Both orders were run. They are the same up to ◆; with the two steps at ◆ exchanged, the schedule passes."
        : "Both orders were run. They are the same up to ◆; with the two steps at ◆ exchanged, it fails in another way."),
      el("div", { class: "panel" }, table(["step", "", "this order fails",
        pair.passes ? "this order passes" : "this one fails otherwise"], rows, [0])),
    ]);
  }

  graph() {
    const { graph } = this.data;
    if (!graph.edges.length) return null;
    return section("Lock order in this schedule", [
      el("p", { class: "quiet" }, "An arrow leads from a lock class to one that was wanted while it was held. Red: the other order is there, too."),
      el("div", { class: "panel" }, drawGraph(graph, (edge) => {
        if (!edge.step) return;
        this.choose(0);
        this.moveTo(edge.step);
      })),
    ]);
  }

  plain() {
    if (!this.data.text) return null;
    return el("details", {}, [el("summary", {}, "The report as text"), el("pre", { class: "panel" }, this.data.text)]);
  }

  where(site) {
    if (site < 0) return "";
    const [file, line, name] = this.data.sites[site];
    return `${file}:${line} in ${name}`;
  }

  choose(at) {
    this.run = this.runs[at];
    this.choice.forEach((button, other) => button.setAttribute("aria-pressed", String(at === other)));
    if (!this.run.steps.length) return;
    this.slider.min = this.run.first;
    this.slider.max = this.run.end;
    this.film.show(this.run);
    this.overview.show(this.run);
    this.fold.setAttribute("aria-pressed", String(this.folded));
    this.lanes.show(this.run, this.folded);
    this.moveTo(this.run.end);
  }

  toggleFold() {
    this.folded = !this.folded;
    this.fold.setAttribute("aria-pressed", String(this.folded));
    this.lanes.show(this.run, this.folded);
    this.moveTo(this.now);
  }

  go(by) {
    const { run, now } = this;
    let to = now;
    if (by === "first") to = run.first;
    else if (by === "last") to = run.end;
    else if (by === "next") do to += 1; while (to < run.end && !run.switches(to));
    else if (by === "before") do to -= 1; while (to > run.first && !run.switches(to));
    else to += by;
    this.moveTo(to);
  }

  moveTo(step) {
    const { run } = this;
    this.now = Math.max(run.first, Math.min(run.end, step));
    this.slider.value = this.now;
    const row = run.step(this.now);
    this.said.textContent = row ? `step ${this.now} of ${run.last}` : `the end, after ${run.last}`;
    this.slider.setAttribute("aria-valuetext",
      row ? `step ${this.now}, ${run.threads[row[0]][1]}: ${run.operation(row)}` : "the end");
    this.lanes.moveTo(this.now);
    this.film.moveTo(Math.min(this.now, run.last));
    this.overview.draw(this.now);
    this.drawCursor(row);
  }

  drawCursor(row) {
    const { run, now } = this;
    const name = (lane) => run.threads[lane][1];
    const held = run.threads.map((_, lane) => [name(lane), run.held(lane, now)])
      .filter(([, locks]) => locks.length);
    const waiting = run.waiting(now).map((span) => `${name(span[0])}: ${run.text(span[5])} ${run.text(span[1])}`);
    const facts = [
      ...(row ? [["thread", name(row[0])],
        ["operation", run.operation(row) + (row[5] ? " (a preemption led here)" : "")],
        ["where", this.where(row[4])]]
        : run.ends.map(([lane, text, site]) => [name(lane), site < 0 ? text : `${text}, ${this.where(site)}`])),
      ["held", held.map(([who, locks]) => `${who}: ${locks.join(", ")}`).join("; ") || "nothing"],
      ["waiting", waiting.join("; ") || "nobody"],
      ...(row && row[6] && row[6].length ? [["notes", row[6].join("; ")]] : []),
      ...(row && row[7] ? [["clock", `${row[7]} s`]] : []),
    ];
    replace(this.cursor, [
      el("h3", {}, row ? `step ${now}` : "the end"),
      el("dl", { class: "at" }, facts.flatMap(([what, value]) => [el("dt", {}, what), el("dd", {}, value)])),
      this.source(row ? row[4] : run.ends[run.ends.length - 1][2]) || this.raised(row),
    ]);
  }

  // What struck has no step of its own: the innermost frames of its traceback, or what it says.
  raised(row) {
    if (row || this.run !== this.runs[0]) return null;
    return el("pre", { class: "raised" }, (this.data.exception || this.data.message).split("\n").slice(-7).join("\n"));
  }

  source(site) {
    if (site < 0) return null;
    const [file, line] = this.data.sites[site];
    const lines = this.data.sources[file] || {};
    const shown = [];
    for (let n = line - 4; n <= line + 3; n += 1) {
      if (lines[n] === undefined) continue;
      shown.push(el("div", { class: n === line ? "here" : null },
        [el("span", { class: "no" }, String(n)), lines[n]]));
    }
    return shown.length ? el("div", { class: "source mono" }, shown) : null;
  }

  key(event) {
    if (!this.run.steps.length) return;
    const by = { ArrowLeft: -1, ArrowRight: 1, j: 1, k: -1, Home: "first", End: "last", n: "next", p: "before" }[event.key];
    if (by !== undefined) this.go(by);
    else if (event.key === "f") this.toggleFold();
    else return;
    event.preventDefault();
  }
}

function legend() {
  const sample = (parts) => svg("svg", { width: 26, height: 14, "aria-hidden": "true" }, parts);
  const entry = (parts, text) => el("span", {}, [sample(parts), ` ${text}`]);
  return el("div", { class: "legend" }, [
    entry([svg("rect", { x: 9, y: 0, width: 5, height: 14, fill: "var(--t1)" })], "holds a lock (a colour each)"),
    entry([svg("rect", { class: "wait", x: 0, y: 0, width: 26, height: 14, fill: "var(--bad)" })], "cannot run: waits"),
    entry([svg("path", { class: "arrow", stroke: "var(--t2)", d: "M0 7 L20 7" }),
      svg("path", { fill: "var(--t2)", d: "M20 3 L26 7 L20 11 Z" })], "lets the other go on"),
    el("span", {}, [el("b", { class: "bad" }, "P"), " a preemption led here"]),
    el("span", {}, "keys: ← → steps, n p switches, Home End, f folds"),
  ]);
}

// Classes in layers from left to right; an edge can be reached and picked by keyboard.
function drawGraph(graph, onpick) {
  const [BOX, HIGH, GAP, DOWN] = [Math.max(90, ...graph.layers.flat().map((n) => n.length * 7.4 + 16)), 26, 70, 18];
  const tall = Math.max(...graph.layers.map((layer) => layer.length));
  const at = new Map();
  graph.layers.forEach((layer, column) => layer.forEach((name, row) => {
    const shift = ((tall - layer.length) * (HIGH + DOWN)) / 2;
    at.set(name, [column * (BOX + GAP) + 8, shift + row * (HIGH + DOWN) + 26]);
  }));
  let [top, bottom] = [0, tall * (HIGH + DOWN) + 20];
  const edges = graph.edges.map((edge) => {
    const [ax, ay] = at.get(edge.outer);
    const [bx, by] = at.get(edge.inner);
    const [y, z] = [ay + HIGH / 2, by + HIGH / 2];
    // What skips a layer bows, so as not to hide behind its boxes.
    const bow = Math.max(0, Math.round((bx - ax) / (BOX + GAP)) - 1) * (y > z ? 34 : -34);
    const reach = bow ? GAP : GAP / 2;
    // A curve goes three quarters of the way to its control points.
    top = Math.min(top, y + 0.75 * bow, z + 0.75 * bow);
    bottom = Math.max(bottom, y + 0.75 * bow, z + 0.75 * bow);
    let path = `M${ax + BOX} ${y} C${ax + BOX + reach} ${y + bow} ${bx - reach} ${z + bow} ${bx} ${z}`;
    let tip = `M${bx - 7} ${z - 4} L${bx} ${z} L${bx - 7} ${z + 4} Z`;
    if (bx <= ax) {
      const up = Math.min(y, z) - 34;
      top = Math.min(top, up);
      path = `M${ax + BOX / 2} ${ay} C${ax + BOX / 2} ${up} ${bx + BOX / 2} ${up} ${bx + BOX / 2 + (ax === bx ? 12 : 0)} ${by}`;
      tip = `M${bx + BOX / 2 - 4} ${by - 7} L${bx + BOX / 2} ${by} L${bx + BOX / 2 + 4} ${by - 7} Z`;
    }
    const said = `${edge.outer} before ${edge.inner}${edge.said ? `: ${edge.said}` : ""}`;
    return svg("g", { tabindex: 0, role: "button", "aria-label": said, onclick: () => onpick(edge),
      onkeydown: (event) => event.key === "Enter" && onpick(edge) }, [
      svg("title", {}, said),
      svg("path", { class: edge.cyclic ? "edge cyclic" : "edge", d: path }),
      svg("path", { fill: edge.cyclic ? "var(--bad)" : "var(--quiet)", d: tip }),
    ]);
  });
  const boxes = [...at].map(([name, [x, y]]) => svg("g", {}, [
    svg("rect", { x, y, width: BOX, height: HIGH, rx: 4 }),
    svg("text", { x: x + BOX / 2, y: y + 17, "text-anchor": "middle" }, name),
  ]));
  const width = graph.layers.length * (BOX + GAP) - GAP + 16;
  const height = bottom - top + 8;
  return el("div", { class: "graph" }, svg("svg", { width, height, viewBox: `0 ${top - 4} ${width} ${height}`,
    role: "group", "aria-label": "lock graph" }, [...edges, ...boxes]));
}
