// A small live chart: the last minute or so of one number.

import { h } from "./dom.js";

const KEPT = 36;
const SVG = "http://www.w3.org/2000/svg";

export class Chart {
  #values = [];

  /** `most` is the top of the scale, or null for the largest value there was. */
  constructor(title, unit, most = null) {
    this.title = title;
    this.unit = unit;
    this.most = most;
    this.number = h("strong", {}, "–");
    this.area = document.createElementNS(SVG, "path");
    this.area.setAttribute("class", "area");
    this.stroke = document.createElementNS(SVG, "path");
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("viewBox", `0 0 ${KEPT - 1} 40`);
    this.svg.setAttribute("preserveAspectRatio", "none");
    this.svg.setAttribute("role", "img");
    this.svg.setAttribute("aria-label", title);
    this.svg.append(this.area, this.stroke);
    this.element = h("figure", { class: "card chart" }, h("figcaption", {}, h("span", {}, title), this.number), this.svg);
  }

  add(value) {
    const known = value !== null && value !== undefined;
    this.number.textContent = known ? `${Math.round(value * 10) / 10}${this.unit}` : "unknown";
    this.#values = [...this.#values, known ? value : 0].slice(-KEPT);
    const top = this.most ?? Math.max(1, ...this.#values);
    const start = KEPT - this.#values.length;
    const points = this.#values.map((one, i) => `${start + i} ${(39 - (38 * Math.min(one, top)) / top).toFixed(2)}`);
    this.stroke.setAttribute("d", `M${points.join("L")}`);
    this.area.setAttribute("d", `M${start} 40L${points.join("L")}L${KEPT - 1} 40Z`);
    this.svg.setAttribute("aria-label", `${this.title}: now ${this.number.textContent}`);
  }
}
