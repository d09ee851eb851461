"use strict";
// Helpers that all parts of the page share. Text from the data only ever becomes text.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value);
  }
  for (const child of [children].flat()) {
    if (child !== null && child !== undefined && child !== "") node.append(child);
  }
  return node;
}

// An element: el("b", {class: "bad"}, "text" or elements).
function el(tag, attributes, children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes, children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function replace(node, children) {
  node.replaceChildren(...[children].flat().filter((child) => child !== null));
}

const threadColor = (lane) => `var(--t${lane % 8})`;

// A colour for each name, in order of appearance.
function palette(prefix, count) {
  const known = new Map();
  return (name) => {
    if (!known.has(name)) known.set(name, known.size % count);
    return `var(--${prefix}${known.get(name)})`;
  };
}

// Rows of cells; a cell is text, a number or an element.
function table(headings, rows, numeric = []) {
  const cell = (tag, value, at) =>
    el(tag, { class: numeric.includes(at) ? "number" : null }, value instanceof Node ? value : String(value));
  return el("table", {}, [
    el("thead", {}, el("tr", {}, headings.map((text, at) => cell("th", text, at)))),
    el("tbody", {}, rows.map((row) =>
      el("tr", { class: row.kind || null }, (row.cells || row).map((value, at) => cell("td", value, at))))),
  ]);
}

function section(title, children) {
  return el("section", {}, [el("h2", {}, title), ...[children].flat()]);
}
