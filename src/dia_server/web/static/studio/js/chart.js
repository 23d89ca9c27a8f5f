// A small live chart of one value over the last 75 s.

import { h } from "./dom.js";

const KEPT = 75_000; // ms of values shown
const SVG = "http://www.w3.org/2000/svg";

export class Chart {
  #points = []; // [time, value]

  /** `most` is the top of the scale; null scales to the largest value shown. */
  constructor(title, unit, most = null) {
    this.title = title;
    this.unit = unit;
    this.most = most;
    this.number = h("strong", {}, "–");
    this.since = h("span");
    this.area = document.createElementNS(SVG, "path");
    this.area.setAttribute("class", "area");
    this.stroke = document.createElementNS(SVG, "path");
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("preserveAspectRatio", "none");
    this.svg.setAttribute("role", "img");
    this.svg.setAttribute("aria-label", title);
    this.svg.append(this.area, this.stroke);
    this.element = h("figure", { class: "card chart" },
      h("figcaption", {}, h("span", {}, title), this.number),
      this.svg,
      h("p", { class: "axis quiet", "aria-hidden": "true" }, this.since, h("span", {}, "now")));
  }

  /** Add a value; null means unknown. */
  add(value) {
    const now = performance.now();
    const known = value !== null && value !== undefined;
    this.number.textContent = known ? `${Math.round(value * 10) / 10}${this.unit}` : "unknown";
    this.#points = [...this.#points.filter(([when]) => when > now - KEPT), [now, known ? value : 0]];
    this.svg.setAttribute("aria-label", `${this.title}: now ${this.number.textContent}`);
    this.#draw();
  }

  /** Draw the points across the whole width, even if there are few. */
  #draw() {
    const [first] = this.#points[0];
    const [last, value] = this.#points.at(-1);
    const points = last > first ? this.#points : [[first, value], [first + 1, value]];
    const width = points.at(-1)[0] - first;
    const top = this.most ?? Math.max(1, ...points.map(([, one]) => one));
    const line = points.map(([when, one]) => `${(when - first).toFixed(0)} ${(39 - (37 * Math.min(one, top)) / top).toFixed(2)}`).join("L");
    this.svg.setAttribute("viewBox", `0 0 ${width} 40`);
    this.stroke.setAttribute("d", `M${line}`);
    this.area.setAttribute("d", `M0 40L${line}L${width} 40Z`);
    this.since.textContent = last > first ? `${Math.round((last - first) / 1000)} s ago` : "";
  }
}
