// The recording that is made or played: its picture, its buttons, its downloads.

import { clock, colours, find, icon } from "./dom.js";
import { Player } from "./player.js";
import { palette, Spectrogram } from "./spectrogram.js";
import { Waveform } from "./waveform.js";

export class Stage {
  player = new Player();
  #wave = new Waveform();
  #spectrum = new Spectrogram();
  #expected = 0;
  #drawing = false;

  constructor() {
    this.player.addEventListener("change", () => this.#refresh());
    find("play").addEventListener("click", () => this.toggle());
    find("seek").addEventListener("input", (event) => this.player.seek(Number(event.target.value)));
    new ResizeObserver(() => this.#refresh()).observe(find("picture"));
    this.recolour();
  }

  get seconds() {
    return this.player.complete ? this.player.duration : Math.max(this.#expected, this.player.duration);
  }

  /** Show that audio of about `expected` seconds is coming. */
  begin(expected) {
    this.#expected = expected;
    this.player.begin(this.player.rate);
    this.#clear();
    find("stage-empty").hidden = true;
    find("stage-full").hidden = false;
    find("made").hidden = false;
    this.#refresh();
  }

  /** The first bytes are here: sound from now on as they come. */
  start(rate) {
    this.player.begin(rate);
    this.#clear();
    this.player.play();
  }

  append(samples) {
    this.player.append(samples);
    this.#refresh();
  }

  end() {
    this.player.end();
    find("made").hidden = true;
    this.#refresh();
  }

  toggle() {
    if (this.player.playing) this.player.pause();
    else this.player.play();
  }

  /** The theme has changed. */
  recolour() {
    const [nothing, first, second, heard, ahead, line] = colours("card", "s1", "s2", "ink", "edge", "line");
    this.#palette = palette([nothing, mixed(nothing, first, 0.16), mixed(nothing, first, 0.5), first, second]);
    this.#colours = { heard, ahead, line };
    this.#refresh();
  }

  #palette;
  #colours;

  #clear() {
    this.#wave.begin(this.player.rate);
    this.#spectrum.begin(this.player.rate);
  }

  #refresh() {
    if (this.#drawing || find("stage-full").hidden) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.#draw();
    });
  }

  #draw() {
    const { player, seconds } = this;
    const position = player.position;
    this.#wave.advance(player.samples);
    const more = this.#spectrum.advance(player.samples);
    this.#wave.draw(find("wave"), seconds || 1, position, this.#colours);
    this.#spectrum.draw(find("spectrum"), seconds || 1, this.#palette);
    const seek = find("seek");
    seek.max = seconds || 1;
    seek.value = position;
    seek.setAttribute("aria-valuetext", `${clock(position)} of ${clock(seconds)}`);
    find("clock").textContent = `${clock(position)} / ${player.complete ? "" : "~"}${clock(seconds)}`;
    const percent = player.complete ? 100 : Math.min(97, Math.round((100 * player.duration) / (this.#expected || 1)));
    find("made").setAttribute("aria-valuenow", percent);
    find("made").firstElementChild.style.width = `${percent}%`;
    const play = find("play");
    const label = player.playing ? "Pause" : "Play";
    if (play.getAttribute("aria-label") !== label) {
      play.setAttribute("aria-label", label);
      play.replaceChildren(icon(label.toLowerCase()));
    }
    play.disabled = !player.length;
    if (player.playing || more) this.#refresh();
  }
}

function mixed(a, b, share) {
  const [from, to] = [a, b].map((colour) => colour.match(/[\d.]+/g).map(Number));
  return `rgb(${from.slice(0, 3).map((value, i) => value + (to[i] - value) * share).join(" ")})`;
}
