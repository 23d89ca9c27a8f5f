// The recordings of voices: play them, correct their transcripts.

import { get, post, put, remove, send } from "./api.js";
import { ask } from "./ask.js";
import { Clip } from "./clip.js";
import { arrange, h, icon, notice, trouble } from "./dom.js";
import { voicelist } from "./voicelist.js";

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
  #rows = new Map(); // prompt id to its row

  constructor() {
    this.element = h("div", { class: "prompts" });
    this.empty = h("p", { class: "empty" }, "No recordings yet. Record one, or choose a file.");
    voicelist.addEventListener("change", () => { for (const row of this.#rows.values()) row.drawUse(); });
  }

  async load() {
    clearTimeout(this.#timer);
    const { audio_prompts: prompts } = await get("/audio_prompts/metadata");
    const ids = new Set(prompts.map((prompt) => prompt.prompt_id));
    for (const id of this.#rows.keys()) if (!ids.has(id)) this.forget(id);
    for (const prompt of prompts) {
      const id = prompt.prompt_id;
      if (!this.#rows.has(id)) this.#rows.set(id, new Row(id, () => this.load()));
      this.#rows.get(id).update(prompt);
    }
    arrange(this.element, prompts.length ? prompts.map((prompt) => this.#rows.get(prompt.prompt_id).element) : [this.empty]);
    if (prompts.some((prompt) => prompt.transcript_source === "pending")) this.#again();
  }

  /** Forget a recording; the next `load` fetches it again. */
  forget(id) {
    this.#rows.get(id)?.clip.stop();
    this.#rows.delete(id);
  }

  leave() {
    clearTimeout(this.#timer);
    for (const row of this.#rows.values()) row.clip.stop();
  }

  #again() {
    this.#timer = setTimeout(() => (document.hidden ? this.#again() : this.load()), PATIENCE);
  }
}

class Row {
  #recording = ""; // duration and size of the fetched audio, to notice a replacement
  #transcript = ""; // the transcript on the server

  /** `onchange()` is called after a change on the server. */
  constructor(id, onchange) {
    this.id = id;
    this.onchange = onchange;
    const name = (this.name = voicelist.name(id));
    this.clip = new Clip(`the recording ${name}`);
    this.pill = h("span", { class: "pill" });
    this.words = h("textarea", { class: "box", id: `words-${id}`, oninput: () => {
      trouble(this.error);
      this.#drawSave();
    } });
    this.save = h("button", { type: "button", onclick: () => this.#act("Transcript saved.", () => this.#save()) }, "Save the transcript");
    this.ask = h("button", { type: "button", class: "ghost", onclick: () => this.#askWhisper() }, "Ask Whisper");
    this.make = h("button", { type: "button", class: "ghost", onclick: () => this.#makeVoice() }, "Make a voice of it");
    this.error = h("p", { class: "trouble", role: "alert", hidden: true });
    this.element = h("article", { class: "card prompt", "aria-label": `Recording ${name}` },
      h("div", { class: "row" }, h("h3", {}, name), this.pill, h("span", { class: "push" }),
        h("button", { type: "button", class: "icon danger", title: "Delete", "aria-label": `Delete the recording ${name}`, onclick: () => this.#remove() }, icon("bin"))),
      this.clip.element,
      h("label", { for: `words-${id}` }, "What is said in it"), this.words,
      h("div", { class: "actions" }, this.save, this.ask, this.make),
      this.error);
  }

  /** Show the server's state; unsaved edits of the transcript are kept. */
  update({ transcript, transcript_source: source, needs_review: unsure, duration, file_size: size }) {
    if (!this.#isEdited()) this.words.value = transcript ?? "";
    this.#transcript = transcript ?? "";
    this.source = source;
    this.isDraft = unsure;
    this.save.textContent = unsure ? "Confirm the transcript" : "Save the transcript";
    if (!this.ask.disabled) this.#drawSource(source);
    this.#drawSave();
    this.drawUse();
    const recording = `${duration} ${size}`;
    if (recording !== this.#recording) {
      this.#recording = recording;
      this.#fetch();
    }
  }

  /** Update which voices use the recording. */
  drawUse() {
    this.users = voicelist.all.filter((voice) => voice.audio_prompt === this.id).map((voice) => voice.name);
    this.make.hidden = this.users.length > 0;
  }

  #isEdited() {
    return this.words.value !== this.#transcript;
  }

  #drawSave() {
    this.save.disabled = !this.words.value.trim() || !(this.#isEdited() || this.isDraft);
  }

  #drawSource(source) {
    const unsure = this.isDraft && source !== "pending";
    this.pill.textContent = unsure ? "Whisper is not sure: check it" : SOURCES[source] ?? "no transcript";
    this.pill.className = `pill ${source && !unsure ? "" : "bad"}`;
  }

  async #fetch() {
    try {
      await this.clip.load(await (await send("GET", `/audio_prompts/${this.id}/audio`)).blob());
    } catch {
      this.clip.time.textContent = "cannot be played";
    }
  }

  async #save() {
    const transcript = this.words.value.trim();
    await put(`/audio_prompts/${this.id}/transcript`, { transcript });
    this.words.value = this.#transcript = transcript;
  }

  async #askWhisper() {
    const before = this.words.value;
    this.ask.disabled = true; // Whisper may have to be loaded first
    this.#drawSource("pending");
    const undo = before.trim() && (() => {
      this.words.value = before;
      this.#drawSave();
    });
    await this.#act("Whisper has written it down.", async () => {
      const { transcript } = await post(`/audio_prompts/${this.id}/transcribe`, {});
      this.words.value = this.#transcript = transcript;
    }, undo);
    this.#drawSource(this.source);
    this.ask.disabled = false;
  }

  async #makeVoice() {
    const replaces = voicelist.all.some((voice) => voice.id === this.id);
    if (replaces && !(await ask(`Replace the voice ${this.name}?`, "It will speak like this recording.", "Replace it"))) return;
    await this.#act("Voice saved.", async () => {
      await post("/voice_mappings", { voice_id: this.id, style: "recorded", audio_prompt: this.id });
      await voicelist.load();
    });
  }

  async #remove() {
    trouble(this.error);
    if (this.users.length) return trouble(this.error, `${this.users.join(" and ")} cannot speak without it: delete that voice first.`);
    if (!(await ask(`Delete the recording ${this.name}?`, "Its audio and its transcript will be deleted.", "Delete it"))) return;
    await this.#act("Recording deleted.", () => remove(`/audio_prompts/${this.id}`));
  }

  async #act(done, action, undo) {
    trouble(this.error);
    try {
      await action();
      notice(done, undo);
      await this.onchange();
    } catch (failure) {
      trouble(this.error, failure.message);
    }
  }
}
