// A finished recording: its waveform with a button to hear it.

import { clock, colours, h, icon } from "./dom.js";
import { audio, Player } from "./player.js";
import { Waveform } from "./waveform.js";

export class Clip {
  #player = new Player();
  #wave = new Waveform();

  /** `label` names the recording for those who do not see it. */
  constructor(label) {
    this.label = label;
    this.button = h("button", { type: "button", class: "round small", onclick: () => this.toggle() });
    this.canvas = h("canvas", { role: "img", "aria-label": `Waveform of ${label}` });
    this.time = h("span", { class: "clock" });
    this.element = h("div", { class: "clip" }, this.button, this.canvas, this.time);
    this.#player.addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.draw();
  }

  get seconds() {
    return this.#player.duration;
  }

  /** Take a blob of any format the browser knows; raises where it knows it not. */
  async load(blob) {
    const decoded = await audio().decodeAudioData(await blob.arrayBuffer());
    this.#player.begin(decoded.sampleRate);
    this.#wave.begin(decoded.sampleRate);
    this.#player.append(decoded.getChannelData(0));
    this.#player.end();
    this.#wave.advance(this.#player.samples);
    this.draw();
  }

  toggle() {
    if (this.#player.playing) this.#player.pause();
    else this.#player.play();
  }

  stop() {
    this.#player.pause();
  }

  draw() {
    const { playing, position, duration } = this.#player;
    this.button.setAttribute("aria-label", `${playing ? "Pause" : "Play"} ${this.label}`);
    if (this.button.dataset.playing !== String(playing)) {
      this.button.dataset.playing = playing;
      this.button.replaceChildren(icon(playing ? "pause" : "play"));
    }
    this.button.disabled = !duration;
    this.time.textContent = duration ? clock(playing ? position : duration) : "";
    if (!this.canvas.isConnected) return;
    const [heard, ahead, line] = colours("s1", "edge", "line");
    this.#wave.draw(this.canvas, duration || 1, playing ? position : 0, { heard, ahead, line });
    if (playing) requestAnimationFrame(() => this.draw());
  }
}
