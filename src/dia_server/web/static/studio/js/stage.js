// The current take: waveform, spectrogram and playback controls.

import { clock, colours, find, icon } from "./dom.js";
import { Player } from "./player.js";
import { palette, Spectrogram } from "./spectrogram.js";
import { Waveform } from "./waveform.js";

const PHONE = matchMedia("(max-width: 44rem)");
const CALM = matchMedia("(prefers-reduced-motion: reduce)");
const STEPS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }; // seconds

export class Stage {
  player = new Player();
  #wave = new Waveform();
  #spectrum = new Spectrogram();
  #expected = 0;
  #waiting = false;
  #drawing = false;
  #palette;
  #colours;

  constructor() {
    this.player.addEventListener("change", () => this.#refresh());
    find("play").addEventListener("click", () => this.toggle());
    find("seek").addEventListener("input", (event) => this.player.seek(Number(event.target.value)));
    find("seek").addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#refresh()).observe(find("picture"));
    this.recolour();
  }

  get seconds() {
    return this.player.complete ? this.player.duration : Math.max(this.#expected, this.player.duration);
  }

  /** Pause and show that audio is awaited; the previous take stays. */
  wait() {
    this.player.pause();
    this.#waiting = true;
    find("stage-empty").hidden = true;
    find("stage-full").hidden = false;
    this.#refresh();
  }

  /** Begin a take of about `expected` seconds, played while it arrives. */
  begin(rate, expected) {
    this.#waiting = false;
    this.#expected = expected;
    this.player.begin(rate);
    this.#wave.begin(rate);
    this.#spectrum.begin(rate);
    this.player.play();
    if (PHONE.matches) find("stage").scrollIntoView({ block: "nearest", behavior: CALM.matches ? "auto" : "smooth" });
  }

  append(samples) {
    this.player.append(samples);
    this.#refresh();
  }

  /** Mark the take as complete. */
  end() {
    this.#waiting = false;
    this.player.end();
    find("stage-full").hidden = !this.player.length;
    find("stage-empty").hidden = this.player.length > 0;
    this.#refresh();
  }

  toggle() {
    if (this.player.playing) this.player.pause();
    else this.player.play();
  }

  /** Redraw in the colours of a changed theme. */
  recolour() {
    const [nothing, first, second, heard, ahead, line] = colours("card", "s1", "s2", "ink", "edge", "line");
    this.#palette = palette([nothing, mixed(nothing, first, 0.16), mixed(nothing, first, 0.5), first, second]);
    this.#colours = { heard, ahead, line };
    this.#refresh();
  }

  /** Seek by STEPS: the field's own step of 0.01 s, made for the pointer, is too small for keys. */
  #key(event) {
    if (!(event.key in STEPS)) return;
    event.preventDefault();
    this.player.seek(this.player.position + STEPS[event.key]);
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
    find("head").style.left = `${(100 * position) / (seconds || 1)}%`;
    const seek = find("seek");
    seek.max = seconds || 1;
    seek.value = position;
    seek.setAttribute("aria-valuetext", `${clock(position)} of ${clock(seconds)}`);
    find("clock").textContent = `${clock(position)} / ${player.complete ? "" : "~"}${clock(seconds)}`;
    this.#drawProgress();
    const play = find("play");
    const label = player.playing ? "Pause" : "Play";
    if (play.getAttribute("aria-label") !== label) {
      play.setAttribute("aria-label", label);
      play.replaceChildren(icon(label.toLowerCase()));
    }
    play.disabled = !player.length;
    if (player.playing || more) this.#refresh();
  }

  #drawProgress() {
    const bar = find("made");
    const percent = this.#waiting ? 0 : Math.min(97, Math.round((100 * this.player.duration) / (this.#expected || 1)));
    bar.hidden = !this.#waiting && this.player.complete;
    bar.classList.toggle("waiting", this.#waiting);
    bar.setAttribute("aria-valuenow", percent);
    bar.firstElementChild.style.width = `${percent}%`;
  }
}

function mixed(a, b, share) {
  const [from, to] = [a, b].map((colour) => colour.match(/[\d.]+/g).map(Number));
  return `rgb(${from.slice(0, 3).map((value, i) => value + (to[i] - value) * share).join(" ")})`;
}
