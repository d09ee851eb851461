"use strict";
// The interleaving: a lane per thread, a row per step, with holds, waits and arrows between.
// Only the rows in sight are in the document, so a long schedule costs no more than a short one.

const ROW = 22;
const NUMBER = 60;
const GUTTER = 7;

class Run {
  // One schedule as the page needs it; numbers of the data become texts here.
  constructor(data, story) {
    Object.assign(this, data);
    this.story = story;
    this.last = this.first + this.steps.length - 1;
    // One more place for the cursor where threads are left standing.
    this.end = this.last + (this.ends.length ? 1 : 0);
    this.film = this.film || [];
  }

  text(number) { return this.story.strings[number]; }

  step(number) { return this.steps[number - this.first]; }

  lane(number) { return this.steps[number - this.first][0]; }

  operation(row) {
    const obj = this.text(row[2]);
    const outcome = this.text(row[3]);
    return this.text(row[1]) + (obj ? ` ${obj}` : "") + (outcome ? ` → ${outcome}` : "");
  }

  // Whether the thread changes with this step.
  switches(number) {
    return number > this.first && number <= this.last && this.lane(number) !== this.lane(number - 1);
  }

  // Locks that a thread holds while step `number` takes effect.
  held(lane, number) {
    return this.holds.filter((s) => s[0] === lane && s[2] < number && number <= s[3])
      .map((s) => this.text(s[1]));
  }

  waiting(number) {
    return this.waits.filter((s) => s[2] <= number && (number < s[3] || s[4]));
  }
}

// Steps that say something: around switches, where waits begin and end, the first and the last.
function telling(run) {
  const kept = new Set();
  const keep = (from, to) => {
    for (let n = Math.max(run.first, from); n <= Math.min(run.last, to); n += 1) kept.add(n);
  };
  keep(run.first, run.first);
  keep(run.last - 7, run.last);
  for (let n = run.first; n <= run.last; n += 1) if (run.switches(n)) keep(n - 1, n);
  for (const wait of run.waits) { keep(wait[2], wait[2]); keep(wait[3], wait[3]); }
  for (const arrow of run.arrows) { keep(arrow[3], arrow[3]); keep(arrow[5], arrow[5]); }
  return kept;
}

class Lanes {
  // onpick(step) is called when a row is clicked.
  constructor(onpick) {
    this.onpick = onpick;
    this.names = el("div", { class: "names" });
    this.locks = el("div", { class: "legend" });
    this.picture = svg("svg", { "aria-hidden": "true" });
    this.layer = el("div", {});
    this.sheet = el("div", { class: "sheet" }, [this.layer, this.picture]);
    this.rows = el("div", { class: "rows", tabindex: "-1", onscroll: () => this.draw() }, this.sheet);
    this.node = el("div", { class: "lanes" }, [this.names, this.rows]);
    this.open = new Set();
    this.folded = true;
    this.now = 1;
    new ResizeObserver(() => this.measure()).observe(this.rows);
  }

  show(run, folded) {
    this.run = run;
    this.folded = folded;
    this.open.clear();
    this.color = palette("k", 8);
    const names = [...new Set(run.holds.map((span) => span[1]))];
    replace(this.locks, names.map((name) => {
      const swatch = el("span", { class: "swatch" });
      swatch.style.background = this.color(name);
      return el("span", {}, [swatch, run.text(name)]);
    }));
    this.place();
    this.measure();
  }

  // The list of rows: {step}, {from, to} for folded steps, {end} for where threads stand at the end.
  place() {
    const { run } = this;
    const kept = this.folded ? telling(run) : null;
    this.list = [];
    this.rowOf = new Int32Array(run.steps.length + 1);
    const push = (item, from, to) => {
      this.rowOf.fill(this.list.length, from - run.first, to - run.first + 1);
      this.list.push(item);
    };
    let n = run.first;
    while (n <= run.last) {
      let to = n;
      while (kept && to < run.last && !kept.has(n) && !kept.has(to + 1)) to += 1;
      if (to > n && !this.open.has(n)) push({ from: n, to }, n, to);
      else for (let step = n; step <= to; step += 1) push({ step }, step, step);
      n = to + 1;
    }
    this.rowOf[run.steps.length] = this.list.length;
    for (const end of run.ends) this.list.push({ end });
    this.sheet.style.height = `${this.list.length * ROW + 4}px`;
    this.rows.style.height = `${Math.min(640, this.list.length * ROW + 20)}px`;
  }

  measure() {
    if (!this.run) return;
    const count = this.run.threads.length;
    const room = Math.max(300, this.rows.clientWidth - NUMBER);
    // The thread that starts the others has little to say besides.
    const weights = this.run.threads.map(([index]) => (index === 0 && count > 2 ? 0.65 : 1));
    const all = weights.reduce((sum, weight) => sum + weight, 0);
    this.widths = weights.map((weight) => Math.max(70, Math.min(320, (room * weight) / all)));
    this.left = [];
    this.widths.reduce((left, width, lane) => { this.left[lane] = left; return left + width; }, NUMBER);
    const wide = this.left[count - 1] + this.widths[count - 1];
    this.sheet.style.width = `${Math.max(room + NUMBER, wide)}px`;
    replace(this.names, [
      (() => { const n = el("span", {}, "step"); n.style.width = `${NUMBER}px`; return n; })(),
      ...this.run.threads.map(([index, name], lane) => {
        const node = el("span", { title: name }, `${index} ${name}`);
        node.style.width = `${this.widths[lane]}px`;
        node.style.color = threadColor(lane);
        return node;
      }),
    ]);
    this.draw();
  }

  x(lane) { return this.left[lane]; }

  // The middle of a step's row; the step after the last is the first row of the ends.
  y(step) {
    const { run } = this;
    const at = Math.max(0, Math.min(run.steps.length, step - run.first));
    return this.rowOf[at] * ROW + ROW / 2;
  }

  moveTo(step) {
    this.now = step;
    const top = this.rowOf[step - this.run.first] * ROW;
    const { scrollTop, clientHeight } = this.rows;
    if (top < scrollTop + ROW) this.rows.scrollTop = Math.max(0, top - clientHeight / 3);
    else if (top > scrollTop + clientHeight - 2 * ROW) this.rows.scrollTop = top - (2 * clientHeight) / 3;
    this.draw();
  }

  draw() {
    if (!this.run || !this.widths) return;
    const first = Math.max(0, Math.floor(this.rows.scrollTop / ROW) - 8);
    const last = Math.min(this.list.length, first + Math.ceil(this.rows.clientHeight / ROW) + 16);
    const rows = [];
    for (let at = first; at < last; at += 1) rows.push(this.row(this.list[at], at));
    replace(this.layer, rows);
    this.drawPicture(first * ROW, last * ROW);
  }

  row(item, at) {
    const { run } = this;
    let now = item.step === this.now;
    const text = el("span", { class: "text" });
    let lane = 0;
    let number = "";
    let kind = "row";
    if (item.end) {
      lane = item.end[0];
      now = this.now > run.last;
      kind = "row end";
      text.append(item.end[1]);
    } else if (item.step === undefined) {
      now = item.from <= this.now && this.now <= item.to;
      lane = run.lane(item.from);
      kind = "row fold";
      const count = item.to - item.from + 1;
      text.append(`… ${count} steps`);
      if (now) text.append(`, now ${this.now}: ${run.operation(run.step(this.now))}`);
    } else {
      const row = run.step(item.step);
      lane = row[0];
      number = item.step;
      if (row[5]) text.append(el("b", { title: "a preemption" }, "P "));
      text.append(run.text(row[1]));
      const rest = run.operation(row).slice(run.text(row[1]).length);
      text.append(el("i", {}, rest));
    }
    text.style.left = `${this.x(lane) + 3 * GUTTER + 4}px`;
    // Over the bars of the next lane only where the row says how it ended.
    if (lane + 1 < this.left.length && !item.end) text.style.maxWidth = `${this.widths[lane] - 3 * GUTTER - 16}px`;
    text.title = text.textContent;
    const node = el("div", { class: now ? `${kind} now` : kind, onclick: () => this.click(item) }, [
      el("span", { class: "number" }, String(number)), text,
    ]);
    node.style.top = `${at * ROW}px`;
    return node;
  }

  click(item) {
    if (item.step !== undefined) this.onpick(item.step);
    else if (item.end) this.onpick(this.run.end);
    else {
      this.open.add(item.from);
      this.place();
      this.onpick(item.from);
    }
  }

  drawPicture(top, bottom) {
    const { run } = this;
    const seen = (a, b) => a <= bottom && b >= top;
    const parts = [];
    // Holds: bars left of the text, side by side where a thread holds several locks.
    const until = run.threads.map(() => []);
    for (const span of run.holds) {
      const [lane, name, begin, end, open] = span;
      const columns = until[lane];
      let column = columns.findIndex((free) => free <= begin);
      if (column < 0) column = columns.length;
      columns[column] = end;
      const [a, b] = [this.y(begin), this.y(end) + (open ? ROW * (run.ends.length - 0.5) : 0)];
      if (!seen(a, b)) continue;
      parts.push(svg("rect", { class: "hold", x: this.x(lane) + (column % 3) * GUTTER + 1, y: a,
        width: GUTTER - 2, height: Math.max(3, b - a), fill: this.color(name) },
      svg("title", {}, run.text(name))));
    }
    for (const [lane, , begin, end, open] of run.waits) {
      const a = this.y(begin) - ROW / 2;
      const b = this.y(end) + (open ? ROW * (run.ends.length - 0.5) : -ROW / 2);
      if (b <= a || !seen(a, b)) continue;
      parts.push(svg("rect", { class: "wait", x: this.x(lane), y: a, width: this.widths[lane] - 6,
        height: b - a, fill: "var(--bad)" }));
    }
    for (const [kind, , source, begin, target, end] of run.arrows) {
      const [a, b] = [this.y(begin), this.y(end)];
      if (!seen(a, b)) continue;
      parts.push(this.arrow(source, a, target, b, run.text(kind)));
    }
    const height = this.list.length * ROW;
    for (const [name, value] of [["width", this.sheet.clientWidth], ["height", height]]) {
      this.picture.setAttribute(name, value);
    }
    replace(this.picture, parts);
  }

  // Along the line under its row, down beside the target's lane, and in: never across a text.
  arrow(source, above, target, below, kind) {
    const color = kind === "hand-off" || kind === "wake" ? threadColor(source) : "var(--start)";
    const from = this.x(source) + 3 * GUTTER + 4;
    const down = this.x(target) - 8;
    const tip = this.x(target) + 1;
    const line = above + ROW / 2;
    const turn = target > source ? 4 : -4;
    return svg("g", {}, [
      svg("path", { class: "arrow", stroke: color,
        d: `M${from} ${line} H${down - turn} Q${down} ${line} ${down} ${line + 4} V${below - 4} Q${down} ${below} ${down + 4} ${below} H${tip - 4}` }),
      svg("circle", { cx: from, cy: line, r: 2.5, fill: color }),
      svg("path", { fill: color, d: `M${tip - 5} ${below - 4} L${tip + 1} ${below} L${tip - 5} ${below + 4} Z` }),
    ]);
  }
}

// The whole schedule in a strip: who runs when, and where the cursor is.
class Overview {
  constructor(onpick) {
    this.node = el("canvas", { class: "overview", "aria-hidden": "true", onclick: (event) => {
      const box = this.node.getBoundingClientRect();
      const part = (event.clientX - box.left) / box.width;
      onpick(this.run.first + Math.floor(part * this.run.steps.length));
    } });
    new ResizeObserver(() => this.run && this.draw(this.now)).observe(this.node);
  }

  show(run) { this.run = run; }

  draw(now) {
    const { run, node } = this;
    this.now = now;
    const lanes = run.threads.length;
    const scale = window.devicePixelRatio || 1;
    const height = Math.max(18, Math.min(72, lanes * 9)) + 2;
    const width = node.clientWidth;
    node.style.height = `${height}px`;
    node.width = width * scale;
    node.height = height * scale;
    const paint = node.getContext("2d");
    paint.scale(scale, scale);
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const x = (step) => ((step - run.first) / run.steps.length) * width;
    const lane = (height - 2) / lanes;
    paint.fillStyle = color("--bad");
    paint.globalAlpha = 0.25;
    for (const [at, , begin, end] of run.waits) {
      paint.fillRect(x(begin), at * lane + 1, x(end) - x(begin), lane - 1);
    }
    paint.globalAlpha = 1;
    let from = run.first;
    for (let n = run.first + 1; n <= run.last + 1; n += 1) {
      if (n <= run.last && run.lane(n) === run.lane(from)) continue;
      const at = run.lane(from);
      paint.fillStyle = color(`--t${at % 8}`);
      paint.fillRect(x(from), at * lane + 2, Math.max(0.7, x(n) - x(from)), lane - 2);
      from = n;
    }
    paint.fillStyle = color("--text");
    paint.fillRect(Math.min(width - 2, x(now)), 0, 2, height);
  }
}
