"use strict";
// A campaign: its parts, scenarios with their rates, findings by fingerprint, the lock graph of all.

function campaignNode(campaign, onpick) {
  const verdict = (text, asItMust) =>
    el("b", { class: text === "pass" || asItMust ? "good" : "bad" }, asItMust ? `${text}, as it must` : text);
  const fastest = Math.max(1, ...campaign.scenarios.map((one) => one.rate));
  const meter = (value, most, text) => {
    const bar = el("div", {});
    bar.style.width = `${(100 * value) / most}%`;
    return el("div", { title: text }, [el("div", { class: "meter" }, bar), el("small", { class: "quiet" }, text)]);
  };
  const count = (value) => value.toLocaleString("en");
  const parts = [
    el("h1", {}, [verdict(campaign.verdict), `: ${campaign.title}`]),
    el("div", { class: "facts" }, campaign.facts.map(([name, value]) =>
      el("span", {}, [`${name} `, el("b", {}, value)]))),
  ];
  if (campaign.parts.length) {
    parts.push(section("What was done", el("div", { class: "panel" }, table(["part", "verdict", ""],
      campaign.parts.map((part) => [part.name, verdict(part.verdict), part.detail])))));
  }
  if (campaign.findings.length) {
    parts.push(section("Findings", el("div", { class: "panel" }, table(
      ["fingerprint", "kind", "where", "schedule", "preemptions", "least", "what"],
      campaign.findings.map((one) => [
        one.story === null ? el("code", {}, one.fingerprint)
          : el("button", { type: "button", class: "finding", onclick: () => onpick(one.story) }, one.fingerprint),
        one.expected ? `${one.kind}, expected` : one.kind, one.where, one.schedule, one.preemptions, one.least, one.message]), [3, 4, 5]))));
  }
  parts.push(section("Scenarios", el("div", { class: "panel" }, table(
    ["scenario", "verdict", "schedules", "steps", "schedules per second", "behaviour seen", "reason"],
    campaign.scenarios.map((one) => [one.name, verdict(one.verdict, one.as_it_must), count(one.schedules), count(one.steps),
      meter(one.rate, fastest, count(Math.round(one.rate))), one.seen, one.reason]), [2, 3]))));
  if (campaign.curves.length) parts.push(section("New behaviour over time", [el("p", { class: "quiet" },
    "Classes of schedules (those that differ in more than the order of steps that commute) over schedules looked at; the grey line is one new class each."),
  curves(campaign.curves)]));
  if (campaign.graph.edges.length) {
    parts.push(section("Lock order of everything that ran", el("div", { class: "panel" }, drawGraph(campaign.graph, () => {}))));
  }
  return el("article", { class: "campaign" }, parts);
}

// Classes over schedules: a curve that flattens has little left to find.
function curves(list) {
  const [WIDE, HIGH] = [220, 90];
  return el("div", { class: "things" }, list.map((curve) => {
    const [[lastX, most]] = curve.points.slice(-1);
    const at = (x, y) => `${(x / lastX) * WIDE} ${HIGH - (y / lastX) * (HIGH - 4)}`;
    const path = curve.points.map(([x, y]) => at(x, y)).join(" L");
    return el("figure", { class: "panel" }, [
      svg("svg", { width: WIDE, height: HIGH, role: "img", "aria-label": `${curve.name}: ${most} of ${lastX}` },
        [svg("path", { class: "arrow", stroke: "var(--line)", d: `M0 ${HIGH} L${at(lastX, lastX)}` }),
          svg("path", { class: "arrow", stroke: "var(--t1)", d: `M0 ${HIGH} L${path}` })]),
      el("figcaption", { class: "quiet" }, `${curve.name}: ${most.toLocaleString("en")} of ${lastX.toLocaleString("en")}`),
    ]);
  }));
}
