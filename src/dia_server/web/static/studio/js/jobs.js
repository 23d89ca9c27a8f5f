// The Jobs view: what is made where nobody waits, and what was.

import { get, unknown } from "./api.js";
import { arrange, h, trouble } from "./dom.js";
import { JobRow } from "./jobrow.js";
import { Poll } from "./poll.js";
import { voicelist } from "./voicelist.js";

const EVERY = 3000; // ms
const SHOWN = 50;

let list;
let error;
let empty;
const rows = new Map(); // job id to its row
const poll = new Poll(look, EVERY);

export function start(root) {
  if (list) return;
  list = h("ul", { class: "jobs" });
  error = h("p", { class: "trouble", role: "alert", hidden: true });
  empty = h("li", { class: "card empty" }, h("h2", {}, "Nothing in the queue"),
    h("p", {}, "Write a dialogue and press “Make as a job”. It appears here, with its progress."),
    h("p", {}, h("a", { href: "#speak" }, "Write a dialogue")));
  root.append(
    h("div", { class: "view-head" }, h("h1", {}, "Jobs"),
      h("p", {}, "Long works are made here while you do something else. They survive a restart of the server.")),
    error, list,
  );
  voicelist.addEventListener("change", () => { for (const row of rows.values()) row.drawFacts(); });
}

export const show = () => poll.start();

export function hide() {
  poll.stop();
  for (const row of rows.values()) row.clip.stop();
}

async function look() {
  try {
    draw((await get(`/jobs?limit=${SHOWN}`)).jobs);
    trouble(error);
  } catch (failure) {
    trouble(error, unknown(failure) ? "This server does not keep jobs." : failure.message);
    if (unknown(failure)) poll.stop();
  }
}

function draw(jobs) {
  const ids = new Set(jobs.map((job) => job.job_id));
  for (const id of rows.keys()) if (!ids.has(id)) rows.delete(id);
  for (const job of jobs) {
    if (!rows.has(job.job_id)) rows.set(job.job_id, new JobRow(job, look));
    rows.get(job.job_id).update(job);
  }
  arrange(list, jobs.length ? jobs.map((job) => rows.get(job.job_id).element) : [empty]);
}
