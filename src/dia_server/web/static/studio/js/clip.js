// A finished recording: a waveform with a play button.

import { clock, colours, h, icon } from "./dom.js";
import { audio, Player } from "./player.js";
import { Waveform } from "./waveform.js";

export class Clip {
  #player = new Player();
  #wave = new Waveform();
  #worded;

  /** `label` names the recording for screen readers; `button` is a play button of the caller's own. */
  constructor(label, button) {
    this.label = label;
    this.#worded = Boolean(button);
    this.button = button ?? h("button", { type: "button", class: "round small", disabled: true, onclick: () => this.toggle() });
    this.canvas = h("canvas", { role: "img", "aria-label": `Waveform of ${label}` });
    this.time = h("span", { class: "clock" });
    this.element = h("div", { class: "clip" }, button ? null : this.button, this.canvas, this.time);
    this.#player.addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.draw();
  }

  get seconds() {
    return this.#player.duration;
  }

  /** Load a blob; throws if the browser cannot decode its format. */
  async load(blob) {
    const decoded = await audio().decodeAudioData(await blob.arrayBuffer());
    this.#player.begin(decoded.sampleRate);
    this.#wave.begin(decoded.sampleRate);
    this.#player.append(decoded.getChannelData(0));
    this.#player.end();
    this.#wave.advance(this.#player.samples);
    this.button.disabled = false;
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
    const verb = playing ? "Pause" : "Play";
    if (this.button.dataset.verb !== verb) {
      this.button.dataset.verb = verb;
      this.button.setAttribute("aria-label", `${verb} ${this.label}`);
      this.button.replaceChildren(icon(verb.toLowerCase()), this.#worded ? verb : "");
    }
    this.time.textContent = duration ? clock(playing ? position : duration) : "";
    if (!this.canvas.isConnected) return;
    const [heard, ahead, line] = colours("s1", "edge", "line");
    this.#wave.draw(this.canvas, duration || 1, playing ? position : 0, { heard, ahead, line });
    if (playing) requestAnimationFrame(() => this.draw());
  }
}
