// Selects the voices of [S1] and [S2].

import { h } from "./dom.js";
import { sampleButton } from "./sample.js";
import { change, onChange, state } from "./state.js";
import { voicelist } from "./voicelist.js";

export class Cast {
  constructor(root) {
    this.root = root;
    this.first = h("select", { id: "voice-1", onchange: (event) => change({ voice: event.target.value }) });
    this.second = h("select", { id: "voice-2", onchange: (event) => change({ voice2: event.target.value }) });
    root.append(
      this.#row(1, "Speaker 1", this.first),
      this.#row(2, "Speaker 2", this.second),
      h("p", { class: "quiet small" }, "Every voice comes with a partner for the other side of a dialogue."),
    );
    voicelist.addEventListener("change", () => this.draw());
    onChange((changes) => {
      if ("voice" in changes) this.first.value = state.voice;
    });
    this.draw();
  }

  name(speaker) {
    if (speaker === 1) return voicelist.name(state.voice);
    return state.voice2 ? voicelist.name(state.voice2) : "Partner";
  }

  draw() {
    const known = voicelist.all;
    if (known.length && !known.some((voice) => voice.id === state.voice)) change({ voice: known[0].id });
    if (known.length && state.voice2 && !known.some((voice) => voice.id === state.voice2)) change({ voice2: "" });
    const shown = known.length ? known : [{ id: state.voice, name: voicelist.name(state.voice) }];
    const options = () => shown.map((voice) =>
      h("option", { value: voice.id }, voice.style ? `${voice.name}, ${voice.style}` : voice.name));
    this.first.replaceChildren(...options());
    this.first.value = state.voice;
    this.second.replaceChildren(h("option", { value: "" }, "The first voice’s partner"), ...options());
    this.second.value = state.voice2;
  }

  #row(speaker, title, select) {
    return h("div", { class: `cast s${speaker}` },
      h("label", { for: select.id }, title),
      h("div", {}, select, sampleButton("icon", `Listen to speaker ${speaker}`,
        () => [(speaker === 2 && state.voice2) || state.voice, speaker])),
    );
  }
}
