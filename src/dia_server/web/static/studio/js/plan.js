// Shows how the server will cut the text into segments.

import { post, unknown } from "./api.js";
import { h } from "./dom.js";
import { chips } from "./script.js";
import { onChange } from "./state.js";

const PATIENCE = 450; // ms after the last keystroke before the server is asked

export class Plan {
  /** Estimated seconds of audio; null while unknown. */
  seconds = null;
  /** What the server says about the text: that it is not English. */
  warning = "";
  #offered = true;
  #asked = "";
  #timer = 0;

  /** `request()` returns the current request; `ontold()` is called when `seconds` has changed. */
  constructor(root, request, ontold) {
    this.request = request;
    this.ontold = ontold;
    this.steps = h("div");
    this.total = h("p", { class: "quiet small total", "aria-live": "polite" });
    root.append(this.steps, this.total);
    onChange(() => {
      if (JSON.stringify(request()) !== this.#asked) this.seconds = null;
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.update(), PATIENCE);
    });
  }

  async update() {
    const body = this.request();
    const asked = JSON.stringify(body);
    if (!body.text) {
      this.#asked = "";
      return this.#say("Long texts are cut into segments. The plan appears here.");
    }
    if (!this.#offered || asked === this.#asked) return;
    this.#asked = asked;
    try {
      const plan = await post("/plan", body);
      if (asked !== this.#asked) return; // edited in the meantime
      this.#draw(plan, body.text);
    } catch (error) {
      if (asked !== this.#asked) return;
      this.#asked = "";
      this.#offered = !unknown(error);
      this.#say(this.#offered ? error.message : "This server does not offer a plan.");
    }
  }

  #say(words) {
    this.steps.replaceChildren();
    this.total.textContent = words;
    this.#tell(null);
  }

  #draw({ utterances, changed, estimated_s: seconds, warnings }, written) {
    const own = changed ? new Set(tokens(written)) : null;
    this.steps.replaceChildren(
      h("ol", { class: "steps", tabindex: 0, "aria-label": "Segments of the text" }, ...utterances.map((segment) =>
        h("li", {},
          h("span", { class: "words" }, ...chips(segment.text).flatMap((part) => marked(part, own))),
          h("span", {}, `${segment.pause_before_s ? `+${round(segment.pause_before_s)} ` : ""}${round(segment.estimated_s)} s`),
        ))),
    );
    const count = utterances.length === 1 ? "One segment" : `${utterances.length} segments, made side by side`;
    const note = changed ? " Marked words are said in place of what you wrote." : "";
    this.total.textContent = `${count}, about ${Math.round(seconds)} s.${note}`;
    this.#tell(seconds, warnings?.[0]?.message);
  }

  #tell(seconds, warning = "") {
    this.seconds = seconds;
    this.warning = warning;
    this.ontold();
  }
}

const tokens = (text) => text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];

/** Mark the words of `part` that are not among the tokens that the user wrote; elements stay as they are. */
const marked = (part, own) =>
  typeof part !== "string" || !own
    ? [part]
    : part.split(/(\s+)/).map((word) => (tokens(word).every((token) => own.has(token)) ? word : h("em", { class: "mark" }, word)));

const round = (seconds) => Math.round(seconds * 10) / 10;
