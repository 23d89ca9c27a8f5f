// Plays samples with Web Audio while more arrive.

const RATE = 44100; // Hz, as the server's; chunks at the context's own rate join without clicks
const LEAD = 0.015; // seconds between now and the first sample
const REFILL = 0.25; // seconds to collect after the network was too slow

let context = null;
let sounding = null; // one player at a time

/** One audio context for the page; browsers let it sound after the first click or key. */
export function audio() {
  context ??= new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
  if (context.state === "suspended") context.resume();
  return context;
}

/** Pause the active player of any view. */
export const silence = () => sounding?.pause();

export class Player extends EventTarget {
  #buffer = new Float32Array(0);
  #sources = new Set();
  #marks = []; // {time, sample} in order: `sample` is heard at `time`
  #head = 0; // number of scheduled samples
  #next = 0; // time of the next sample
  #start = 0; // position while paused
  rate = RATE;
  length = 0;
  complete = true;
  playing = false;

  /** Discard the current audio and expect new audio at `rate`. */
  begin(rate) {
    this.#silence();
    Object.assign(this, { rate, length: 0, complete: false, playing: false });
    this.#buffer = new Float32Array(rate * 20);
    this.#start = 0;
  }

  append(samples) {
    if (this.length + samples.length > this.#buffer.length) {
      const larger = new Float32Array(2 * (this.length + samples.length));
      larger.set(this.samples);
      this.#buffer = larger;
    }
    this.#buffer.set(samples, this.length);
    this.length += samples.length;
    if (this.playing) this.#schedule();
  }

  end() {
    this.complete = true;
    if (this.playing) this.#schedule();
    if (!this.#sources.size) this.#finished();
  }

  get samples() {
    return this.#buffer.subarray(0, this.length);
  }

  get duration() {
    return this.length / this.rate;
  }

  /** Playback position in seconds. */
  get position() {
    if (!this.playing) return this.#start / this.rate;
    const now = audio().currentTime;
    const mark = this.#marks.findLast(({ time }) => time <= now) ?? this.#marks[0];
    if (!mark) return this.#start / this.rate;
    const heard = mark.sample + Math.max(0, now - mark.time) * this.rate;
    return Math.min(heard, this.#head) / this.rate;
  }

  play() {
    if (this.playing) return;
    if (this.complete && this.#start >= this.length) this.#start = 0;
    if (sounding !== this) sounding?.pause();
    sounding = this;
    this.playing = true;
    this.#head = this.#start;
    this.#next = 0;
    this.#marks = [];
    this.#schedule();
    this.dispatchEvent(new Event("change"));
  }

  pause() {
    if (!this.playing) return;
    this.#start = Math.round(this.position * this.rate);
    this.playing = false;
    this.#silence();
    this.dispatchEvent(new Event("change"));
  }

  seek(seconds) {
    const wasPlaying = this.playing;
    if (wasPlaying) this.pause();
    this.#start = Math.min(this.length, Math.max(0, Math.round(seconds * this.rate)));
    if (wasPlaying) this.play();
    else this.dispatchEvent(new Event("change"));
  }

  #schedule() {
    const ready = this.length - this.#head;
    if (!ready) return;
    const out = audio();
    const late = this.#next < out.currentTime;
    // after an underrun, buffer REFILL seconds first, so that one gap does not become many
    if (late && this.#marks.length && !this.complete && ready < REFILL * this.rate) return;
    if (late) {
      this.#next = out.currentTime + LEAD;
      this.#marks.push({ time: this.#next, sample: this.#head });
    }
    const buffer = out.createBuffer(1, ready, this.rate);
    buffer.copyToChannel(this.#buffer.subarray(this.#head, this.length), 0);
    const source = new AudioBufferSourceNode(out, { buffer });
    source.connect(out.destination);
    source.onended = () => {
      this.#sources.delete(source);
      if (this.playing && !this.#sources.size && this.#head === this.length) this.#finished();
    };
    source.start(this.#next);
    this.#sources.add(source);
    this.#next += ready / this.rate;
    this.#head = this.length;
  }

  #finished() {
    if (!this.complete || !this.playing) return;
    this.playing = false;
    this.#start = this.length;
    this.dispatchEvent(new Event("change"));
  }

  #silence() {
    for (const source of this.#sources) {
      source.onended = null;
      source.stop();
    }
    this.#sources.clear();
    this.#marks = [];
  }
}
