// How a text will be cut, told by the server before it is made.

import { post, unknown } from "./api.js";
import { h } from "./dom.js";
import { chips } from "./script.js";
import { onChange } from "./state.js";

const PATIENCE = 450; // ms without a key before the server is asked

export class Plan {
  /** Seconds the text will take, or null while that is not known. */
  seconds = null;
  #offered = true;
  #asked = "";
  #timer = 0;

  constructor(root, request) {
    this.root = root;
    this.request = request;
    onChange(() => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.update(), PATIENCE);
    });
  }

  async update() {
    const body = this.request();
    const asked = JSON.stringify(body);
    if (!body.text) {
      this.#asked = "";
      this.seconds = null;
      return this.#say("Long texts are cut into pieces that sound best. The plan appears here.");
    }
    if (!this.#offered || asked === this.#asked) return;
    this.#asked = asked;
    try {
      const plan = await post("/plan", body);
      if (asked !== this.#asked) return; // it was edited meanwhile
      this.seconds = plan.estimated_s;
      this.#draw(plan);
    } catch (error) {
      this.seconds = null;
      if (!unknown(error)) return this.#say(error.message);
      this.#offered = false;
      this.#say("This server does not tell its plan of a text beforehand.");
    }
  }

  #say(words) {
    this.root.replaceChildren(h("p", { class: "quiet small" }, words));
  }

  #draw({ utterances, estimated_s: seconds }) {
    const pieces = utterances.length === 1 ? "One piece" : `${utterances.length} pieces, made side by side`;
    this.root.replaceChildren(
      h("ol", { class: "steps", tabindex: 0, "aria-label": "Pieces of the text" }, ...utterances.map((piece) =>
        h("li", {},
          h("span", { class: "words" }, ...chips(piece.text)),
          h("span", {}, `${piece.pause_before_s ? `+${round(piece.pause_before_s)} ` : ""}${round(piece.estimated_s)} s`),
        ))),
      h("p", { class: "quiet small total" }, `${pieces}, about ${Math.round(seconds)} s.`),
    );
  }
}

const round = (seconds) => Math.round(seconds * 10) / 10;
