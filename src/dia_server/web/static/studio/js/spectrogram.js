// A spectrogram: one column of bytes every 12 ms, on a logarithmic scale from 60 Hz to 12 kHz.

import { Fft } from "./fft.js";

const SIZE = 2048;
const HOP = 512;
const ROWS = 96;
const LOW = 60;
const HIGH = 12000;
const FLOOR = -60; // dB, drawn in the first colour
const TOP = -9; // dB, drawn in the last colour
const BUDGET = 6; // ms of work per call, so that the page stays responsive

export class Spectrogram {
  #fft = new Fft(SIZE);
  #columns = [];
  #edges = [];
  #drawn = [];

  begin(rate) {
    this.rate = rate;
    this.#columns = [];
    this.#edges = Array.from({ length: ROWS + 1 }, (_, row) => (LOW * (HIGH / LOW) ** (row / ROWS) * SIZE) / rate);
  }

  /** Analyse new samples for at most BUDGET ms; returns whether more are left. */
  advance(samples) {
    const until = performance.now() + BUDGET;
    for (;;) {
      const at = this.#columns.length * HOP;
      if (at + SIZE > samples.length) return false;
      this.#columns.push(this.#column(this.#fft.power(samples, at)));
      if (performance.now() > until) return true;
    }
  }

  #column(power) {
    const column = new Uint8Array(ROWS);
    for (let row = 0; row < ROWS; row++) {
      const [from, to] = [this.#edges[row], this.#edges[row + 1]];
      const low = Math.floor(from);
      // low rows are narrower than an FFT bin, so interpolate; high rows span many bins, so take the loudest
      let loudest = power[low] + (power[low + 1] - power[low]) * (from - low);
      for (let bin = low + 1; bin < to; bin++) loudest = Math.max(loudest, power[bin]);
      // speech has less energy at high frequencies: raise them by up to 18 dB
      const db = 10 * Math.log10(loudest / (SIZE * SIZE / 16) + 1e-12) + (18 * row) / ROWS;
      column[row] = 255 * Math.max(0, Math.min(1, (db - FLOOR) / (TOP - FLOOR))) ** 1.15;
    }
    return column;
  }

  /** Scale `seconds` to the canvas's width and draw what has changed; `palette` has 256 colours as [r, g, b]. */
  draw(canvas, seconds, palette) {
    const width = Math.max(1, Math.round(canvas.clientWidth));
    const now = [width, seconds, palette, this.#columns, this.#columns.length];
    if (now.every((value, i) => value === this.#drawn[i])) return;
    this.#drawn = now;
    if (canvas.width !== width || canvas.height !== ROWS) Object.assign(canvas, { width, height: ROWS });
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, ROWS);
    const perPixel = (seconds * this.rate) / HOP / width;
    for (let x = 0; x < width; x++) {
      const place = Math.min(x * perPixel, this.#columns.length);
      const column = this.#columns[Math.floor(place)];
      const next = this.#columns[Math.floor(place) + 1] ?? column;
      for (let row = 0; row < ROWS; row++) {
        const level = column ? column[row] + (next[row] - column[row]) * (place % 1) : 0;
        const colour = palette[Math.round(level)];
        const at = 4 * ((ROWS - 1 - row) * width + x);
        image.data[at] = colour[0];
        image.data[at + 1] = colour[1];
        image.data[at + 2] = colour[2];
        image.data[at + 3] = 255;
      }
    }
    context.putImageData(image, 0, 0);
  }
}

/** Interpolate 256 colours between `stops`, which are CSS rgb() values. */
export function palette(stops) {
  const found = stops.map((stop) => stop.match(/[\d.]+/g).slice(0, 3).map(Number));
  return Array.from({ length: 256 }, (_, i) => {
    const place = (i / 255) * (found.length - 1);
    const low = Math.min(Math.floor(place), found.length - 2);
    return found[low].map((value, channel) => value + (found[low + 1][channel] - value) * (place - low));
  });
}
