// The Jobs view: what is made where nobody waits, and what was.

import { get, remove, send, unknown } from "./api.js";
import { Clip } from "./clip.js";
import { download, h, icon, notice, trouble } from "./dom.js";
import { chips } from "./script.js";

const EVERY = 3000; // ms; a client may ask for 100 jobs a minute, so only a few are watched closely
const WATCHED = 3;
const SHOWN = 50;
const PREVIEW = 100; // characters of a text that the server tells
const LOOKS = { pending: "busy", processing: "busy", completed: "good", failed: "bad", cancelled: "" };
const EXTENSIONS = { opus: "ogg" };

let list;
let error;
let timer = 0;
const rows = new Map(); // job id to its row

export function start(root) {
  if (list) return;
  list = h("ul", { class: "jobs" });
  error = h("p", { class: "trouble", role: "alert", hidden: true });
  root.append(
    h("div", { class: "view-head" }, h("h1", {}, "Jobs"),
      h("p", {}, "Long works are made here while you do something else. They survive a restart of the server.")),
    error, list,
  );
}

export async function show() {
  clearTimeout(timer);
  try {
    await load();
    trouble(error);
  } catch (failure) {
    trouble(error, unknown(failure) ? "This server does not keep jobs." : failure.message);
    if (unknown(failure)) return;
  }
  if (location.hash === "#jobs") timer = setTimeout(show, EVERY);
}

export function hide() {
  clearTimeout(timer);
  for (const row of rows.values()) row.clip?.stop();
}

async function load() {
  const { jobs } = await get(`/jobs?limit=${SHOWN}`);
  const ids = new Set(jobs.map((job) => job.job_id));
  for (const id of rows.keys()) if (!ids.has(id)) rows.delete(id);
  for (const job of jobs) {
    if (!rows.has(job.job_id)) rows.set(job.job_id, new Row(job));
    rows.get(job.job_id).update(job);
  }
  list.replaceChildren(...(jobs.length ? jobs.map((job) => rows.get(job.job_id).element) : [empty()]));
  const running = jobs.filter((job) => job.status === "processing").slice(0, WATCHED);
  const failed = jobs.filter((job) => job.status === "failed" && !rows.get(job.job_id).known).slice(0, WATCHED);
  await Promise.all([...running, ...failed].map(async (job) => {
    rows.get(job.job_id)?.detail(await get(`/jobs/${job.job_id}`));
  }));
}

function empty() {
  return h("li", { class: "card empty" }, h("h2", {}, "Nothing in the queue"),
    h("p", {}, "Write a dialogue and press “Make as a job”. It appears here, with its progress."),
    h("p", {}, h("a", { href: "#speak" }, "Write a dialogue")));
}

class Row {
  known = false;

  constructor({ job_id: id, text_preview: text, created_at: created }) {
    this.id = id;
    this.status = "";
    this.pill = h("span", { class: "pill" });
    this.facts = h("span", { class: "quiet small" });
    this.bar = h("div", { class: "bar", role: "progressbar", "aria-label": "Made", "aria-valuemin": 0, "aria-valuemax": 100, hidden: true }, h("i"));
    this.actions = h("div", { class: "actions" });
    this.error = h("p", { class: "trouble", role: "alert", hidden: true });
    this.element = h("li", { class: "card job", "data-job": id },
      h("p", { class: "text" }, ...chips(text), text.length < PREVIEW || /[.!?]$/.test(text) ? "" : "…"),
      h("div", { class: "row" }, this.pill,
        h("time", { class: "quiet small", datetime: created, title: new Date(created).toLocaleString() }, when(created)), this.facts,
        h("span", { class: "push" }), this.actions),
      this.bar, this.error);
  }

  update({ status }) {
    if (status === this.status) return;
    this.status = status;
    this.pill.className = `pill ${LOOKS[status] ?? ""}`;
    this.pill.textContent = status;
    this.bar.hidden = status !== "processing";
    const open = status === "pending" || status === "processing";
    this.actions.replaceChildren(...(status === "completed" ? [
      h("button", { type: "button", onclick: () => this.#act(() => this.#play()) }, icon("play"), "Play"),
      h("button", { type: "button", onclick: () => this.#act(() => this.#save()) }, icon("save"), "Download"),
    ] : []), h("button", { type: "button", class: "ghost danger", onclick: () => this.#act(() => this.#remove()) },
      icon(open ? "close" : "bin"), open ? "Cancel" : "Delete"));
  }

  /** What only a look at the job itself tells. */
  detail(job) {
    this.known = job.status === "failed";
    this.bar.setAttribute("aria-valuenow", job.progress);
    this.bar.firstElementChild.style.width = `${job.progress}%`;
    this.facts.textContent = job.status === "processing" ? `${job.progress} %` : "";
    if (job.error) trouble(this.error, job.error);
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
    const job = await get(`/jobs/${this.id}`);
    const blob = await (await send("GET", `/jobs/${this.id}/result`)).blob();
    return { job, blob };
  }

  async #play() {
    if (!this.clip) {
      const { job, blob } = await this.#result();
      const clip = new Clip("this job’s audio");
      try {
        await clip.load(blob);
      } catch {
        return trouble(this.error, `The browser cannot play ${job.response_format}; download it instead.`);
      }
      this.clip = clip;
      this.error.before(clip.element);
      clip.draw();
    }
    this.clip.toggle();
  }

  async #save() {
    const { job, blob } = await this.#result();
    download(blob, `${this.id}.${EXTENSIONS[job.response_format] ?? job.response_format}`);
  }

  async #remove() {
    this.clip?.stop();
    const { status } = await remove(`/jobs/${this.id}`);
    notice(status === "cancelled" ? "The job is cancelled." : "The job is deleted.");
    await show();
  }
}

function when(iso) {
  const minutes = Math.round((Date.now() - new Date(iso)) / 60_000);
  const format = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  if (minutes < 1) return "just now";
  if (minutes < 60) return format.format(-minutes, "minute");
  return minutes < 1440 ? format.format(-Math.round(minutes / 60), "hour") : format.format(-Math.round(minutes / 1440), "day");
}
