// Helpers for elements, notices and canvases.

/** h("button", {class: "primary", onclick: go, "aria-label": "Go"}, "Go", icon("play")) */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

export const find = (id) => document.getElementById(id);

const PASSING = 5000; // ms
const UNDONE_WITHIN = 12_000;

/** Show a message for some seconds, also to screen readers; `undo` adds an Undo button. */
export function notice(words, undo) {
  const line = h("p", {}, words, undo ? h("button", { type: "button", "aria-label": `Undo: ${words}`, onclick: () => {
    line.remove();
    undo();
  } }, "Undo") : null);
  find("notices").append(line);
  setTimeout(() => line.remove(), undo ? UNDONE_WITHIN : PASSING);
}

/** Make `elements` the children of `parent`. Unmoved ones are not touched, so that they keep the focus. */
export function arrange(parent, elements) {
  for (const child of [...parent.children]) if (!elements.includes(child)) child.remove();
  elements.forEach((element, i) => {
    if (parent.children[i] !== element) parent.insertBefore(element, parent.children[i] ?? null);
  });
}

/** Show `words` in an alert element; hide it without words. */
export function trouble(element, words) {
  element.textContent = words || "";
  element.hidden = !words;
}

export function download(blob, name) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** 75.3 -> "1:15" */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** Colours of the current theme for the canvas; custom properties do not resolve light-dark(). */
export function colours(...names) {
  const probe = h("i", { hidden: true });
  document.body.append(probe);
  const found = names.map((name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  });
  probe.remove();
  return found;
}

/** Size a canvas to its box in device pixels; returns its context in CSS pixels. */
export function fit(canvas) {
  const { width, height } = canvas.getBoundingClientRect();
  const scale = devicePixelRatio || 1;
  const w = Math.round(width * scale);
  const t = Math.round(height * scale);
  if (canvas.width !== w || canvas.height !== t) Object.assign(canvas, { width: w, height: t });
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}
