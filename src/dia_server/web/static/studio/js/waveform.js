// A waveform of bars; each peak is the loudest sample in 3 ms.

import { fit } from "./dom.js";

const SPAN = 128; // samples
const BAR = 3; // pixels
const GAP = 2;

export class Waveform {
  #peaks = [];
  rate = 1;
  #read = 0;

  begin(rate) {
    this.rate = rate;
    this.#peaks = [];
    this.#read = 0;
  }

  advance(samples) {
    for (; this.#read + SPAN <= samples.length; this.#read += SPAN) {
      let peak = 0;
      for (let i = this.#read; i < this.#read + SPAN; i++) peak = Math.max(peak, Math.abs(samples[i]));
      this.#peaks.push(peak);
    }
  }

  /** Scale `seconds` to the canvas's width and draw; bars before `position` have the colour `heard`. */
  draw(canvas, seconds, position, { heard, ahead, line }) {
    const { context, width, height } = fit(canvas);
    const bars = Math.max(1, Math.floor((width + GAP) / (BAR + GAP)));
    const step = (width - BAR) / Math.max(1, bars - 1); // the last bar ends at the canvas's edge
    const perBar = (seconds * this.rate) / SPAN / bars;
    const middle = height / 2;
    for (let bar = 0; bar < bars; bar++) {
      const from = Math.floor(bar * perBar);
      const to = Math.max(from + 1, Math.floor((bar + 1) * perBar));
      let peak = 0;
      for (let i = from; i < to; i++) peak = Math.max(peak, this.#peaks[i] ?? 0);
      const made = from < this.#peaks.length;
      const tall = made ? Math.max(1.5, Math.sqrt(peak) * (middle - 2)) : 1;
      context.fillStyle = !made ? line : ((bar + 0.5) / bars) * seconds < position ? heard : ahead;
      context.beginPath();
      context.roundRect(bar * step, middle - tall, BAR, 2 * tall, BAR / 2);
      context.fill();
    }
  }
}
