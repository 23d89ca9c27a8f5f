// The form that makes a voice from a recording.

import { get, post, put, send } from "./api.js";
import { ask } from "./ask.js";
import { Clip } from "./clip.js";
import { clock, h, icon, notice, trouble } from "./dom.js";
import { health } from "./health.js";
import { microphoneTrouble, Recorder } from "./recorder.js";
import { voicelist } from "./voicelist.js";

const ENOUGH = 60; // seconds, the maximum of the server
const ADVISED = [3, 30]; // seconds
const UNSURE = "Whisper is not sure of these words. Listen to the recording and correct them: the voice is saved when you have confirmed them.";

export class NewVoice {
  #recorder = null;
  #starting = false; // the browser asks the user for the microphone
  #saving = false;
  #blob = null;
  #draft = null; // id of the uploaded recording whose transcript the user has to confirm

  /** `onsaved(id)` is called when the recording and its voice have been saved. */
  constructor(onsaved) {
    this.onsaved = onsaved;
    this.clip = new Clip("your recording");
    this.clip.element.hidden = true;
    this.length = h("p", { class: "hint", role: "status", hidden: true });
    this.record = h("button", { type: "button", id: "record",
      onclick: (event) => event.detail < 2 && this.#record() }); // a double click counts once
    this.file = h("input", { type: "file", id: "voice-file", accept: "audio/*,video/webm,video/mp4", class: "hidden-label",
      onchange: () => this.file.files[0] && this.#take(this.file.files[0]) });
    this.level = h("div", { class: "bar level", hidden: true }, h("i"));
    this.name = h("input", { type: "text", id: "voice-name", maxlength: 64, required: true, placeholder: "Grandmother", autocomplete: "off" });
    this.words = h("textarea", { class: "box", id: "voice-words", placeholder: "Every word, as it is said." });
    this.advice = h("p", { role: "status" });
    this.standIn = h("p", { class: "quiet small", hidden: true }, "The preview voice does not sound like the recording; Dia does.");
    this.error = h("p", { class: "trouble", role: "alert", hidden: true });
    this.save = h("button", { type: "submit", class: "primary", id: "save-voice" });
    this.element = h("form", { class: "card newvoice", onsubmit: (event) => this.#save(event), novalidate: true,
      oninput: () => trouble(this.error),
      "aria-labelledby": "newvoice-title",
      ondragover: (event) => event.preventDefault(),
      ondrop: (event) => {
        event.preventDefault();
        if (event.dataTransfer.files[0]) this.#take(event.dataTransfer.files[0]);
      } },
      h("h2", { id: "newvoice-title" }, "A new voice"),
      h("p", { class: "quiet small" }, "5 to 10 seconds of one person, without music or noise. Ask for permission before you use another person’s voice."),
      this.standIn,
      h("div", { class: "actions" }, this.record,
        h("label", { class: "button", for: "voice-file" }, icon("file"), "Choose a file"), this.file),
      this.level, this.clip.element, this.length,
      h("label", { for: "voice-words" }, "What is said in it"), this.words, this.advice,
      h("label", { for: "voice-name" }, "Name"), this.name,
      this.error, this.save);
    const told = () => { this.standIn.hidden = health.now?.engine !== "preview"; };
    health.addEventListener("change", told);
    told();
    this.#draw();
  }

  #draw() {
    const on = Boolean(this.#recorder) && !this.#starting;
    this.record.className = on ? "recording" : "";
    this.record.disabled = this.#starting;
    this.record.replaceChildren(icon(on ? "stop" : "mic"), on ? "Stop · 0:00" : "Record");
    this.level.hidden = !on;
    this.save.disabled = Boolean(this.#recorder) || this.#saving || !this.#blob;
    this.advice.className = this.#draft ? "hint" : "quiet small";
    this.advice.textContent = this.#draft ? UNSURE : "Leave it empty to have Whisper write it down.";
    this.save.textContent = this.#saving ? "Saving…" : this.#draft ? "Confirm and save as a voice" : "Save as a voice";
  }

  async #record() {
    trouble(this.error);
    if (this.#recorder) return this.#stop();
    const recorder = (this.#recorder = new Recorder());
    this.#starting = true;
    this.#draw();
    try {
      const runs = await recorder.start((level, seconds) => {
        this.level.firstElementChild.style.width = `${Math.min(100, 140 * level)}%`;
        this.record.lastChild.textContent = `Stop · ${clock(seconds)}`;
        if (seconds >= ENOUGH && this.#recorder === recorder) this.#stop();
      });
      if (!runs) return;
      this.clip.stop();
    } catch (error) {
      if (this.#recorder !== recorder) return; // the view has been left
      this.#recorder = null;
      trouble(this.error, microphoneTrouble(error));
    }
    this.#starting = false;
    this.#draw();
    if (document.activeElement === document.body) this.record.focus(); // a disabled button loses the focus
  }

  async #stop() {
    const recorder = this.#recorder;
    this.#recorder = null;
    this.#draw();
    await this.#take(await recorder.stop());
  }

  async #take(blob) {
    trouble(this.error);
    if (this.#draft) this.#setDraft(null);
    this.#blob = blob;
    if (blob.name && !this.name.value) this.name.value = blob.name.replace(/\.[^.]+$/, "");
    this.clip.element.hidden = false;
    try {
      await this.clip.load(blob);
      this.#judge(this.clip.seconds);
    } catch {
      // the server decodes more formats than the browser
      this.clip.element.hidden = true;
      this.length.hidden = true;
      notice("The browser cannot play this file; the server may still be able to read it.");
    }
    this.#draw();
  }

  #judge(seconds) {
    const [least, most] = ADVISED;
    this.length.textContent = seconds < least
      ? `Under ${least} seconds tell little of a voice. 5 to 10 are best.`
      : `Over ${most} seconds leave little room for what the voice is to say. 5 to 10 are best.`;
    this.length.hidden = seconds >= least && seconds <= most;
  }

  /** Release the microphone; called when the user leaves the view. */
  async leave() {
    this.clip.stop();
    if (this.#starting) {
      this.#recorder.drop();
      this.#recorder = null;
      this.#starting = false;
      this.#draw();
    } else if (this.#recorder) await this.#stop();
  }

  async #save(event) {
    event.preventDefault();
    trouble(this.error);
    const id = this.#draft ?? idOf(this.name.value);
    if (!id) {
      this.name.focus();
      return trouble(this.error, "Give the voice a name of letters or digits.");
    }
    const words = this.words.value.trim();
    if (this.#draft && !words) {
      this.words.focus();
      return trouble(this.error, "Write down what is said in the recording.");
    }
    this.#saving = true;
    this.#draw();
    try {
      if (!this.#draft && !(await mayReplace(id))) return;
      const { transcript, needs_review: unsure } = this.#draft
        ? await put(`/audio_prompts/${id}/transcript`, { transcript: words })
        : await this.#upload(id, words);
      if (unsure) return this.#setDraft(id, transcript);
      await post("/voice_mappings", { voice_id: id, style: "recorded", primary_speaker: "S1", audio_prompt: id });
      notice(transcript
        ? "Saved. Try it, or cast it in a dialogue."
        : "Saved. It can speak once its recording has a transcript: write it below.");
      this.#clear();
      this.onsaved(id);
    } catch (error) {
      trouble(this.error, error.message);
    } finally {
      this.#saving = false;
      this.#draw();
    }
  }

  async #upload(id, transcript) {
    const form = new FormData();
    form.append("prompt_id", id);
    form.append("transcript", transcript);
    form.append("audio_file", this.#blob, this.#blob.name ?? "recording.webm");
    return (await send("POST", "/audio_prompts/upload", { form })).json();
  }

  /** Ask the user to confirm Whisper's transcript of the recording `id`; null ends that. */
  #setDraft(id, transcript = "") {
    this.#draft = id;
    this.words.value = transcript;
    this.name.readOnly = Boolean(id);
    if (id) this.words.focus();
  }

  #clear() {
    this.#setDraft(null);
    this.#blob = null;
    this.name.value = this.words.value = this.file.value = "";
    this.clip.stop();
    this.clip.element.hidden = this.length.hidden = true;
  }
}

/** Convert a name to an id: "Grand-père 2" -> "grand-pere_2". */
export function idOf(name) {
  const letters = name.trim().toLowerCase().normalize("NFD").replace(/\p{Mark}/gu, "");
  return letters.replace(/[^a-z0-9_.-]+/g, "_").replace(/^[._]+|_+$/g, "");
}

/** Ask before replacing a recording or voice with this id; resolves to true if there is none. */
async function mayReplace(id) {
  const [{ audio_prompts: recordings }] = await Promise.all([get("/audio_prompts"), voicelist.load()]);
  const voice = voicelist.all.find((one) => one.id === id);
  const recording = recordings.some((one) => one.prompt_id === id);
  if (!voice && !recording) return true;
  const name = voicelist.name(id);
  if (recording) return ask(`Replace ${name}?`, "There is already a recording with this name. It will be deleted.", "Replace it");
  return ask(`Replace ${name}?`, voice.builtIn
    ? `${name} is a voice that comes with the server. It will speak like your recording until you reset it.`
    : `There is already a voice with this name. It will speak like the new recording.`, "Replace it");
}
