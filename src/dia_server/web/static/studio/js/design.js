// Designs a voice: Dia makes candidates, the user hears them and keeps one.

import { get, post, remove, send } from "./api.js";
import { Clip } from "./clip.js";
import { arrange, h, icon, notice, trouble } from "./dom.js";
import { health } from "./health.js";
import { idOf } from "./newvoice.js";
import { Poll } from "./poll.js";
import { voicelist } from "./voicelist.js";
import { FAULTS } from "./words.js";

const EVERY = 1000; // ms between looks while candidates are made
const MOST = 8; // candidates, the maximum of the server
const STYLES = { neutral: "Unlike the other voices", deep: "Deep voices", bright: "Bright voices" };

export class Design {
  #poll = new Poll(() => this.#look(), EVERY);
  #rows = new Map(); // candidate id to its row
  #looks = 0; // number of the latest look; answers to earlier ones are ignored

  /** `onkept()` is called when a voice has been created, changed or renamed. */
  constructor(onkept) {
    this.onkept = onkept;
    this.voice = h("select", { id: "design-voice", onchange: () => this.#choose() });
    this.name = h("input", { type: "text", id: "design-name", maxlength: 128, autocomplete: "off" });
    this.style = h("select", { id: "design-style" }, ...Object.entries(STYLES).map(([value, words]) => h("option", { value }, words)));
    this.count = h("input", { type: "number", id: "design-count", min: 1, max: MOST, value: 4, required: true });
    this.make = h("button", { type: "submit", class: "primary" }, "Make candidates");
    this.cancel = h("button", { type: "button", class: "ghost", hidden: true, onclick: () => this.#act(() => this.#discard()) }, icon("close"), "Cancel");
    this.fields = h("fieldset", {},
      h("div", { class: "fields" },
        field("Voice", this.voice), field("Display name", this.name), field("Show first", this.style), field("How many", this.count)),
      h("div", { class: "actions" }, this.make, this.cancel));
    this.without = h("p", { class: "hint", hidden: true },
      "Voices are designed with Dia, which needs a GPU. This server has the preview engine, whose voices never change.");
    this.progress = h("p", { class: "quiet small", role: "status" });
    this.error = h("p", { class: "trouble", role: "alert", hidden: true });
    this.list = h("ul", { class: "candidates", "aria-label": "Candidates" });
    this.element = h("form", { class: "card design", novalidate: true, "aria-labelledby": "design-title",
      onsubmit: (event) => {
        event.preventDefault();
        this.#act(() => this.#ask());
      } },
      h("h2", { id: "design-title" }, "Design a voice"),
      h("p", { class: "quiet small" }, "No recording is needed: Dia speaks two sentences with several voices, and you keep the one you like. It takes minutes without a fast GPU."),
      this.without, this.fields, this.error, this.progress, this.list);
    health.addEventListener("change", () => this.#drawEngine());
    voicelist.addEventListener("change", () => this.#drawVoices());
    this.#drawEngine();
    this.#drawVoices();
    this.#choose();
  }

  /** Look for candidates that are being made; called when the user enters the view. */
  show() {
    this.#poll.start();
  }

  /** Called when the user leaves the view. */
  leave() {
    this.#poll.stop();
    for (const row of this.#rows.values()) row.clip.stop();
  }

  get #chosen() {
    return voicelist.all.find((voice) => voice.id === this.voice.value);
  }

  #drawEngine() {
    const preview = health.now?.engine === "preview";
    this.fields.disabled = preview;
    this.without.hidden = !preview;
  }

  #drawVoices() {
    const { value } = this.voice;
    const voices = voicelist.all.filter((voice) => !voice.audio_prompt);
    this.voice.replaceChildren(h("option", { value: "" }, "A new voice"), ...voices.map((voice) => h("option", { value: voice.id }, voice.name)));
    this.voice.value = voices.some((voice) => voice.id === value) ? value : "";
    for (const row of this.#rows.values()) row.drawKept(this.#chosen?.anchor);
  }

  #choose() {
    const voice = this.#chosen;
    this.name.value = voice?.display_name ?? "";
    this.name.placeholder = voice?.name ?? "Grandmother";
    this.style.value = voice && voice.style in STYLES ? voice.style : "neutral";
    trouble(this.error);
    this.#draw([]);
    this.#poll.start();
  }

  async #look() {
    const number = ++this.#looks;
    const { value: id } = this.voice;
    if (!id) return this.#poll.stop();
    try {
      const { candidates } = await get(`/voices/${id}/candidates`);
      if (number === this.#looks && id === this.voice.value) this.#draw(candidates);
    } catch (failure) {
      this.#poll.stop();
      trouble(this.error, failure.message);
    }
  }

  #draw(candidates) {
    const ids = new Set(candidates.map((one) => one.candidate_id));
    for (const [id, row] of this.#rows) if (!ids.has(id)) {
      row.clip.stop();
      this.#rows.delete(id);
    }
    candidates.forEach((one) => {
      if (!this.#rows.has(one.candidate_id)) this.#rows.set(one.candidate_id, new Row(one, () => this.#act(() => this.#keep(one))));
      this.#rows.get(one.candidate_id).update(one, this.#chosen?.anchor);
    });
    arrange(this.list, candidates.map((one) => this.#rows.get(one.candidate_id).element));
    const pending = candidates.filter((one) => one.status === "pending").length;
    this.cancel.hidden = !pending;
    const words = pending ? `${candidates.length - pending} of ${candidates.length} are ready.` : candidates.length ? "All are ready. The most promising comes first." : "";
    if (this.progress.textContent !== words) this.progress.textContent = words; // unchanged text must not be announced again
    if (!pending && !candidates.some((one) => one.checking)) this.#poll.stop();
  }

  async #ask() {
    const count = Number(this.count.value);
    if (!(count >= 1 && count <= MOST)) {
      this.count.focus();
      throw new Error(`Choose between 1 and ${MOST} candidates.`);
    }
    this.make.disabled = true;
    try {
      const id = this.voice.value || (await this.#create());
      if (!id) return;
      const { candidates } = await post(`/voices/${id}/candidates`, { count, style: this.style.value });
      this.#looks++;
      this.#draw(candidates);
      this.#poll.start();
    } finally {
      this.make.disabled = false;
      if (document.activeElement === document.body) this.make.focus(); // a disabled button loses the focus
    }
  }

  /** Create the new voice and choose it; returns its id. */
  async #create() {
    const name = this.name.value.trim();
    if (!name) {
      this.name.focus();
      throw new Error("Give the new voice a name.");
    }
    await voicelist.load();
    const taken = new Set(voicelist.all.map((voice) => voice.id.toLowerCase()));
    const stem = idOf(name).slice(0, 60) || "voice";
    let id = stem;
    for (let n = 2; taken.has(id); n++) id = `${stem}_${n}`;
    await post("/voice_mappings", { voice_id: id, style: this.style.value, display_name: name });
    await voicelist.load();
    this.voice.value = id;
    return id;
  }

  async #keep({ voice_id: id, candidate_id }) {
    await post(`/voices/${id}/anchor`, { candidate_id });
    const { style, primary_speaker, display_name, name } = this.#chosen;
    const wanted = this.name.value.trim();
    if (wanted && wanted !== (display_name ?? name)) {
      await post("/voice_mappings", { voice_id: id, style, primary_speaker, display_name: wanted });
    }
    await voicelist.load();
    notice(`${voicelist.name(id)} sounds like this from now on.`);
    this.onkept();
    if (document.activeElement === document.body) this.#rows.get(candidate_id)?.clip.button.focus();
  }

  async #discard() {
    await remove(`/voices/${this.voice.value}/candidates`);
    this.#looks++;
    this.#draw([]);
    this.make.focus();
    notice("The candidates are cancelled.");
  }

  async #act(action) {
    trouble(this.error);
    try {
      await action();
    } catch (failure) {
      trouble(this.error, failure.message);
    }
  }
}

export const field = (label, input) => h("div", { class: "field" }, h("label", { for: input.id }, label), input);

/** A candidate. Its elements are created once and updated, so that they keep the focus. */
class Row {
  #fetched = false;

  constructor(candidate, onkeep) {
    const name = `the candidate with seed ${candidate.seed}`;
    this.clip = new Clip(name);
    this.pill = h("span", { class: "pill" });
    this.facts = h("span", { class: "quiet small" });
    this.bar = h("div", { class: "bar waiting", "aria-hidden": "true" }, h("i"));
    this.keep = h("button", { type: "button", "aria-label": `Keep ${name}`, onclick: onkeep }, "Keep");
    this.element = h("li", { class: "candidate" },
      this.bar, this.clip.element,
      h("div", { class: "row" }, this.pill, this.facts, h("span", { class: "push" }), this.keep));
  }

  update(candidate, anchor) {
    const { status, faults, pitch, word_errors: wrong, checking, error, audio_url: url } = candidate;
    this.candidate = candidate;
    const done = status === "completed";
    this.bar.hidden = status !== "pending";
    this.clip.element.hidden = this.keep.hidden = !done;
    const facts = [
      pitch && `${Math.round(pitch)} Hz`,
      checking ? "Whisper is listening…" : wrong !== null && `${Math.round(100 * wrong)} % of the words unclear`,
      error,
    ];
    this.facts.textContent = facts.filter(Boolean).join(" · ");
    this.verdict = done
      ? faults.length ? ["bad", faults.map((fault) => FAULTS[fault] ?? fault).join(", ")] : ["good", "no faults"]
      : status === "pending" ? ["busy", "being made"] : ["bad", "failed"];
    this.drawKept(anchor);
    if (done && !this.#fetched) this.#fetch(url);
  }

  /** Show whether this candidate is the voice's `anchor`. */
  drawKept(anchor) {
    const kept = anchor && anchor.seed === this.candidate.seed && anchor.transcript === this.candidate.transcript;
    const [look, words] = kept ? ["good", "the voice now"] : this.verdict;
    this.pill.className = `pill ${look}`;
    this.pill.textContent = words;
    this.keep.disabled = Boolean(kept);
  }

  async #fetch(url) {
    this.#fetched = true;
    try {
      await this.clip.load(await (await send("GET", url)).blob());
    } catch {
      this.clip.time.textContent = "cannot be played";
    }
  }
}
