// A job in the list. Its elements are created once and updated, so that they keep the focus.

import { remove, send } from "./api.js";
import { ask } from "./ask.js";
import { Clip } from "./clip.js";
import { clock, download, h, icon, notice, trouble } from "./dom.js";
import { fileName, FORMATS } from "./formats.js";
import { chips } from "./script.js";
import { voicelist } from "./voicelist.js";
import { FAULTS } from "./words.js";

const PREVIEW = 100; // characters of the text preview
const LONGEST_WORD = 30;
const NAME = 40; // characters of a job's name, the start of its text
const LOOKS = { pending: "busy", processing: "busy", completed: "good", failed: "bad", cancelled: "" };
const STATES = { pending: "waiting", processing: "being made", completed: "ready", failed: "failed", cancelled: "cancelled" };

export class JobRow {
  #job;
  #loaded = false;

  /** `onchange()` is called after a change on the server. */
  constructor(job, onchange) {
    this.#job = job;
    this.onchange = onchange;
    const text = cut(job.text_preview);
    const name = (this.name = text.replace(/\[S[12]\]\s*/g, "").slice(0, NAME));
    this.play = h("button", { type: "button", onclick: () => this.#act(() => this.#play()) });
    this.clip = new Clip(`“${name}”`, this.play);
    this.clip.element.hidden = true;
    this.save = h("button", { type: "button", "aria-label": `Download “${name}”`, onclick: () => this.#act(() => this.#save()) }, icon("save"), "Download");
    this.remove = h("button", { type: "button", class: "ghost danger", onclick: () => this.#act(() => this.#remove()) });
    this.pill = h("span", { class: "pill" });
    this.when = h("time", { class: "quiet small", datetime: job.created_at, title: new Date(job.created_at).toLocaleString() });
    this.facts = h("span", { class: "quiet small" });
    this.bar = h("div", { class: "bar", role: "progressbar", "aria-label": `Made of “${name}”`, "aria-valuemin": 0, "aria-valuemax": 100 }, h("i"));
    this.error = h("p", { class: "trouble", role: "alert", hidden: true });
    this.element = h("li", { class: "card job", "data-job": job.job_id },
      h("p", { class: "text" }, ...chips(text)),
      h("div", { class: "row" }, this.pill, this.when, this.facts, h("span", { class: "push" }),
        h("div", { class: "actions" }, this.play, this.save, this.remove)),
      this.bar, this.clip.element, this.error);
  }

  /** Whether the job is pending or processing. */
  get open() {
    return this.#job.status === "pending" || this.#job.status === "processing";
  }

  update(job) {
    this.#job = job;
    const { status, progress } = job;
    const { open } = this;
    const running = status === "processing";
    if (status !== this.shown) {
      trouble(this.error, job.error);
      this.shown = status;
      this.pill.className = `pill ${LOOKS[status] ?? ""}`;
      this.play.hidden = this.save.hidden = status !== "completed";
      this.remove.setAttribute("aria-label", `${open ? "Cancel" : "Delete"} “${this.name}”`);
      this.remove.replaceChildren(icon(open ? "close" : "bin"), open ? "Cancel" : "Delete");
    }
    const pill = `${STATES[status] ?? status}${running ? ` · ${progress} %` : ""}`;
    if (this.pill.textContent !== pill) this.pill.textContent = pill;
    this.when.textContent = when(job.created_at);
    this.drawFacts();
    this.bar.hidden = !running;
    this.bar.setAttribute("aria-valuenow", progress);
    this.bar.firstElementChild.style.width = `${progress}%`;
  }

  drawFacts() {
    const { voice_id: voice, response_format: format, duration, faults = [] } = this.#job;
    const facts = [voicelist.name(voice), FORMATS[format], duration && clock(duration), ...faults.map((fault) => FAULTS[fault] ?? fault)];
    this.facts.textContent = facts.filter(Boolean).join(" · ");
  }

  /** Cancel the job, or delete it if it is finished. */
  forget() {
    return remove(`/jobs/${this.#job.job_id}`);
  }

  async #act(action) {
    trouble(this.error);
    try {
      await action();
    } catch (failure) {
      trouble(this.error, failure.message);
    }
  }

  async #result() {
    return (await send("GET", `/jobs/${this.#job.job_id}/result`)).blob();
  }

  async #play() {
    if (!this.#loaded) {
      const blob = await this.#result();
      try {
        await this.clip.load(blob);
      } catch {
        return trouble(this.error, `The browser cannot play ${FORMATS[this.#job.response_format]}; download it instead.`);
      }
      this.#loaded = true;
      this.clip.element.hidden = false;
    }
    this.clip.toggle();
  }

  async #save() {
    download(await this.#result(), fileName(this.#job.job_id, this.#job.response_format));
  }

  async #remove() {
    const sure = await (this.open
      ? ask("Cancel this job?", "The audio made so far will be deleted.", "Cancel the job")
      : ask("Delete this job?", "Its text and its audio will be deleted.", "Delete it"));
    if (!sure) return;
    this.clip.stop();
    const neighbour = this.element.nextElementSibling ?? this.element.previousElementSibling;
    const { status } = await this.forget();
    notice(status === "cancelled" ? "The job is cancelled." : "The job is deleted.");
    await this.onchange();
    if (!this.element.isConnected) neighbour?.querySelector("button:not([hidden])")?.focus();
  }
}

/** Cut the preview of a text at a word boundary. */
function cut(text) {
  if (text.length < PREVIEW || /[.!?…]$/.test(text)) return text;
  const space = text.lastIndexOf(" ");
  return `${text.slice(0, space > PREVIEW - LONGEST_WORD ? space : PREVIEW).replace(/[\s.,;:!?]+$/, "")}…`;
}

function when(iso) {
  const minutes = Math.round((Date.now() - new Date(iso)) / 60_000);
  const format = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  if (minutes < 1) return "just now";
  if (minutes < 60) return format.format(-minutes, "minute");
  return minutes < 1440 ? format.format(-Math.round(minutes / 60), "hour") : format.format(-Math.round(minutes / 1440), "day");
}
