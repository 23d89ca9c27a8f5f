// A take: requests speech, plays it on the stage, downloads it.

import { Refusal, send } from "./api.js";
import { download, find } from "./dom.js";
import { fileName } from "./formats.js";
import { audio } from "./player.js";
import { Stage } from "./stage.js";
import { read, write } from "./wav.js";

const PART = "Stopped. A WAV download has the part made so far; other formats are made again as a whole.";

export class Take {
  #stage = new Stage();
  #making = null; // {abort, before, begun} of the running request
  #made = null; // the request whose audio is on the stage

  /** `onchange()` is called when generation or playback begins or ends. */
  constructor(onchange) {
    this.onchange = onchange;
    this.#stage.player.addEventListener("change", onchange);
  }

  get making() {
    return this.#making !== null;
  }

  get running() {
    return this.making || this.#stage.player.playing;
  }

  recolour() {
    this.#stage.recolour();
  }

  /** Generate and play `body`, about `seconds()` of audio, replacing the current take. Throws Refusal. */
  async make(body, seconds) {
    this.stop();
    audio();
    const mine = (this.#making = { abort: new AbortController(), before: find("facts").textContent, begun: false });
    this.#stage.wait();
    told("Waiting for the first sound…");
    this.onchange();
    const asked = performance.now();
    let first = null;
    try {
      const response = await send("POST", "/generate", {
        json: { ...body, response_format: "wav", stream: true },
        signal: mine.abort.signal,
      });
      for await (const chunk of read(response)) {
        if (this.#making !== mine) return; // received after the take was stopped
        if (chunk.rate) {
          mine.begun = true; // the previous take stays until the first bytes arrive
          this.#made = { ...body, seed: Number(response.headers.get("X-Seed") ?? body.seed ?? 0) };
          this.#stage.begin(chunk.rate, seconds());
          continue;
        }
        first ??= performance.now() - asked;
        this.#stage.append(chunk);
        told("Being made while you listen");
      }
      if (first === null) throw new Refusal("The server sent no sound.");
      this.#end(this.#facts(first, performance.now() - asked));
    } catch (error) {
      if (this.#making !== mine) return; // the user stopped it
      this.#end(mine.begun ? "" : mine.before);
      throw error instanceof Refusal ? error : new Refusal("The connection broke while it was made.");
    }
  }

  /** Stop generation and playback; the audio so far stays. */
  stop() {
    this.#stage.player.pause();
    if (!this.#making) return;
    const { abort, before, begun } = this.#making;
    abort.abort();
    this.#end(begun ? PART : before);
  }

  /** Download the take as `format`. */
  async save(format) {
    const name = fileName("dialogue", format);
    const { samples, rate } = this.#stage.player;
    if (format === "wav") return download(write(samples, rate), name);
    // streamed like the take, so that the same seed gives the same audio: responses that are not streamed
    // are generated again while they are faulty
    const response = await send("POST", "/generate", { json: { ...this.#made, response_format: format, stream: true } });
    download(await response.blob(), name);
  }

  #end(words) {
    this.#making = null;
    told(words);
    this.#stage.end();
    this.onchange();
  }

  #facts(first, whole) {
    const times = (1000 * this.#stage.player.duration) / whole;
    return `First sound after ${(first / 1000).toFixed(2)} s · made ${times < 10 ? times.toFixed(1) : Math.round(times)}× as fast as it plays · seed ${this.#made.seed}`;
  }
}

/** Show a text about the take; an unchanged text is not announced again. */
function told(words) {
  if (find("facts").textContent !== words) find("facts").textContent = words;
}
