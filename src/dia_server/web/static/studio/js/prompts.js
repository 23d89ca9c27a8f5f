// The recordings that voices are made of: hear them, correct what is said in them.

import { get, post, put, remove, send } from "./api.js";
import { Clip } from "./clip.js";
import { h, icon, notice, trouble } from "./dom.js";

const SOURCES = {
  reference: "from a file beside it",
  txt: "from a file beside it",
  manual: "written by you",
  whisper_auto: "by Whisper: check it",
  pending: "Whisper is listening…",
};
const PATIENCE = 2500; // ms between looks while Whisper works

export class Prompts {
  #timer = 0;

  /** `onvoice(id)` makes a voice of a recording. */
  constructor(onvoice) {
    this.onvoice = onvoice;
    this.element = h("div", { class: "prompts" });
  }

  async load() {
    clearTimeout(this.#timer);
    const { audio_prompts: prompts } = await get("/audio_prompts/metadata");
    this.element.replaceChildren(...(prompts.length ? prompts.map((prompt) => this.#row(prompt)) : [
      h("p", { class: "empty" }, "No recordings yet. Record one, or choose a file."),
    ]));
    if (prompts.some((prompt) => prompt.transcript_source === "pending")) {
      this.#timer = setTimeout(() => this.element.isConnected && this.load(), PATIENCE);
    }
  }

  leave() {
    clearTimeout(this.#timer);
  }

  #row(prompt) {
    const id = prompt.prompt_id;
    const clip = new Clip(`the recording ${id}`);
    send("GET", `/audio_prompts/${id}/audio`).then((answer) => answer.blob()).then((blob) => clip.load(blob))
      .catch(() => { clip.time.textContent = "cannot be played"; });
    const words = h("textarea", { class: "box", id: `words-${id}`, value: prompt.transcript ?? "",
      oninput: () => { save.disabled = !words.value.trim() || words.value === (prompt.transcript ?? ""); } });
    const save = h("button", { type: "button", disabled: true, onclick: () => act("Transcript saved.", () =>
      put(`/audio_prompts/${id}/transcript`, { transcript: words.value.trim() })) }, "Save the transcript");
    const error = h("p", { class: "trouble", role: "alert", hidden: true });
    const act = async (done, action) => {
      trouble(error);
      try {
        await action();
        notice(done);
        await this.load();
      } catch (failure) {
        trouble(error, failure.message);
      }
    };
    const pill = h("span", { class: `pill ${prompt.transcript ? "" : "bad"}` });
    const ask = h("button", { type: "button", class: "ghost", onclick: async () => {
      asking(true); // Whisper may have to be loaded first, which takes a while
      await act("Whisper has written it down.", () => post(`/audio_prompts/${id}/transcribe`, {}));
      asking(false);
    } }, "Ask Whisper");
    const asking = (now) => {
      ask.disabled = now;
      pill.textContent = SOURCES[now ? "pending" : prompt.transcript_source] ?? "no transcript";
    };
    asking(false);
    return h("article", { class: "card prompt", "aria-label": `Recording ${id}` },
      h("div", { class: "row" }, h("h3", {}, id),
        pill,
        h("span", { class: "push" }),
        h("button", { type: "button", class: "icon danger", title: "Delete", "aria-label": `Delete the recording ${id}`,
          onclick: () => act("Recording deleted.", () => remove(`/audio_prompts/${id}`)) }, icon("bin"))),
      clip.element,
      h("label", { for: `words-${id}` }, "What is said in it"), words,
      h("div", { class: "actions" }, save, ask,
        h("button", { type: "button", class: "ghost", onclick: () => act("Voice saved.", () => this.onvoice(id)) }, "Make a voice of it")),
      error);
  }
}
