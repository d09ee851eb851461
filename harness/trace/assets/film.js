"use strict";
// The film: every thing that the program shows, in the place where it is at the cursor.

// A whole picture is kept every so many frames, so that any step is near one.
const KEPT = 256;

class Film {
  // onpick(step) is called to go where a thing last changed.
  constructor(onpick) {
    this.onpick = onpick;
    this.body = el("div", {});
    this.title = el("h3", {});
    this.node = el("div", { class: "panel film", role: "region", "aria-label": "where everything is" },
      [this.title, this.body]);
  }

  show(run) {
    this.run = run;
    this.message = run.kind ? run.story.message : "";
    this.node.hidden = run.film.length === 0;
    this.color = palette("s", 6);
    this.kept = [];
    this.slots = new Map();
    const now = new Map();
    run.film.forEach((frame, at) => {
      apply(now, frame);
      if (at % KEPT === 0) this.kept.push(new Map(now));
      for (const [, place, where] of frame[1]) {
        if (!this.slots.has(place)) this.slots.set(place, new Set());
        if (run.text(where)) this.slots.get(place).add(where);
      }
    });
    for (const [place, places] of this.slots) {
      const sorted = [...places].sort((a, b) => Number(run.text(a)) - Number(run.text(b)));
      this.slots.set(place, sorted);
    }
  }

  // Where each thing is after `step`: name to [name, place, at, state, marks]; what the step changed.
  at(step) {
    const { film } = this.run;
    let low = 0;
    let high = film.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (film[middle][0] <= step) low = middle + 1;
      else high = middle;
    }
    if (low === 0) return [new Map(), new Set()];
    const base = Math.floor((low - 1) / KEPT);
    const now = new Map(this.kept[base]);
    for (let at = base * KEPT + 1; at < low; at += 1) apply(now, film[at]);
    const latest = film[low - 1];
    return [now, new Set(latest[0] === step ? latest[1].map((thing) => thing[0]) : [])];
  }

  moveTo(step) {
    if (this.node.hidden) return;
    const { run } = this;
    this.step = step;
    const [now, changed] = this.at(step);
    const inside = new Map();
    for (const thing of now.values()) {
      if (!inside.has(thing[1])) inside.set(thing[1], []);
      inside.get(thing[1]).push(thing);
    }
    this.title.textContent = `after step ${step}`;
    replace(this.body, [...this.slots].map(([place, slots]) => {
      const things = inside.get(place) || [];
      const tile = (thing) => this.tile(thing, changed.has(thing[0]));
      const tiles = slots.length
        ? slots.flatMap((where) => {
          const there = things.filter((thing) => thing[2] === where).map(tile);
          return there.length ? there : [el("div", { class: "slot" }, run.text(where))];
        }).concat(things.filter((thing) => !slots.includes(thing[2])).map(tile))
        : things.map(tile);
      return el("div", { class: things.length ? "place" : "place empty" }, [
        el("h4", {}, run.text(place)), el("div", { class: "things" }, tiles),
      ]);
    }));
  }

  tile([name, , where, state, marks], changed) {
    const { run } = this;
    const text = run.text(name);
    const kind = ["thing", changed ? "changed" : "", this.named(text) ? "named" : ""].join(" ").trim();
    const node = el("button", { type: "button", class: kind, "data-thing": text,
      title: "go to its last change", onclick: () => this.goBack(name) }, [
      el("b", {}, text + (run.text(where) ? ` ${run.text(where)}` : "")),
      run.text(state),
      ...marks.map((mark) => el("small", {}, run.text(mark))),
    ]);
    node.style.background = this.color(state);
    return node;
  }

  // Whether the failure's message names the thing.
  named(text) {
    const at = this.message.indexOf(text);
    return at >= 0 && !/\w/.test(this.message[at + text.length] || "") && !/\w/.test(this.message[at - 1] || "");
  }

  goBack(name) {
    const { film, first } = this.run;
    for (let at = film.length - 1; at >= 0; at -= 1) {
      if (film[at][0] < this.step && film[at][1].some((thing) => thing[0] === name)) {
        this.onpick(Math.max(first, film[at][0]));
        return;
      }
    }
  }
}

function apply(now, [, changed, gone]) {
  for (const thing of changed) now.set(thing[0], thing);
  for (const name of gone) now.delete(name);
}
