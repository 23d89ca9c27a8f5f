// The Jobs view: running and finished jobs.

import { get, unknown } from "./api.js";
import { ask } from "./ask.js";
import { arrange, h, icon, notice, trouble } from "./dom.js";
import { JobRow } from "./jobrow.js";
import { Poll } from "./poll.js";
import { voicelist } from "./voicelist.js";

const EVERY = 3000; // ms
const SHOWN = 50;

let list;
let clear; // the button that deletes finished jobs
let clearError;
let error;
let empty;
let looks = 0; // requests for the list
const rows = new Map(); // job id to its row
const poll = new Poll(look, EVERY);

export function start(root) {
  if (list) return;
  list = h("ul", { class: "jobs" });
  error = h("p", { class: "trouble", role: "alert", hidden: true });
  clearError = h("p", { class: "trouble", role: "alert", hidden: true });
  clear = h("button", { type: "button", class: "ghost danger", hidden: true, onclick: clearFinished }, icon("bin"), "Clear finished jobs");
  empty = h("li", { class: "card empty" }, h("h2", {}, "Nothing in the queue"),
    h("p", {}, "Write a dialogue and press “Make as a job”. It appears here, with its progress."),
    h("p", {}, h("a", { href: "#speak" }, "Write a dialogue")));
  root.append(
    h("div", { class: "view-head" }, h("h1", {}, "Jobs"),
      h("p", {}, "Long texts are made here while you do something else. Jobs survive a restart of the server."),
      h("span", { class: "push" }), clear),
    error, clearError, list,
  );
  voicelist.addEventListener("change", () => { for (const row of rows.values()) row.drawFacts(); });
}

export const show = () => poll.start();

export function hide() {
  poll.stop();
  for (const row of rows.values()) row.clip.stop();
}

/** Draw the list; an answer that arrives after a later request was sent may hold deleted jobs, and is ignored. */
async function look() {
  const number = ++looks;
  try {
    const { jobs } = await get(`/jobs?limit=${SHOWN}`);
    if (number !== looks) return;
    draw(jobs);
    trouble(error);
  } catch (failure) {
    if (number !== looks) return;
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
  clear.hidden = !finished().length;
  arrange(list, jobs.length ? jobs.map((job) => rows.get(job.job_id).element) : [empty]);
}

/** Rows of the jobs that are completed, failed or cancelled. */
const finished = () => [...rows.values()].filter((row) => !row.open);

async function clearFinished() {
  trouble(clearError);
  const gone = finished();
  const [them, jobs] = gone.length === 1 ? ["it", "job"] : ["them", "jobs"];
  if (!(await ask(`Delete ${gone.length} finished ${jobs}?`, "Text and audio will be deleted. Jobs that wait or run are kept.",
    `Delete ${them}`, `No, keep ${them}`))) return;
  clear.disabled = true;
  const failures = [];
  for (const row of gone) {
    row.clip.stop();
    if (failures[0]?.status === 429) failures.push(failures[0]); // the limit would refuse the others too
    else await row.forget().catch((failure) => { if (failure.status !== 404) failures.push(failure); }); // deleted already
  }
  if (failures.length) trouble(clearError, `Not deleted: ${failures.length} of ${gone.length}. ${failures[0].message}`);
  else notice(`${gone.length} finished ${jobs} deleted.`);
  clear.disabled = false;
  await look();
  if (document.activeElement !== document.body) return;
  if (clear.hidden) list.querySelector("button:not([hidden]), a").focus();
  else clear.focus();
}
