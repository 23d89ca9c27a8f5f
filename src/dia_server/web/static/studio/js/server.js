// The Server view: health, statistics, configuration.

import { get, unknown } from "./api.js";
import { Chart } from "./chart.js";
import { Config } from "./config.js";
import { h, trouble } from "./dom.js";
import { health, modelState } from "./health.js";
import { Poll } from "./poll.js";

const EVERY = 2000; // ms
const STEPS_A_SECOND = 44100 / 512; // decode steps in a second of speech

let facts;
let sums;
let hosts;
let charts;
let named;
let config;
let error;
const poll = new Poll(look, EVERY);

export function start(root) {
  if (facts) return;
  facts = h("dl", { class: "facts" });
  sums = h("dl", { class: "facts" });
  hosts = h("section", { class: "card", hidden: true, "aria-labelledby": "hosts-title" });
  named = {
    active: new Chart("Speaking or waiting", ""),
    cpu: new Chart("Processor", " %", 100),
    memory: new Chart("Memory", " %", 100),
  };
  charts = h("div", { class: "charts" }, ...Object.values(named).map((chart) => chart.element));
  config = new Config();
  error = h("p", { class: "trouble", role: "alert", hidden: true });
  root.append(
    h("div", { class: "view-head" }, h("h1", {}, "Server"),
      h("p", {}, "Health, work done and configuration.")),
    error, charts,
    h("div", { class: "halves" },
      h("section", { class: "card", "aria-labelledby": "health-title" }, h("h2", { id: "health-title" }, "Health"), facts),
      h("section", { class: "card", "aria-labelledby": "done-title" }, h("h2", { id: "done-title" }, "Work done"), sums)),
    hosts,
    config.element,
  );
  health.addEventListener("change", drawHealth);
}

export async function show() {
  drawHealth();
  poll.start();
  try {
    await config.load();
  } catch (failure) {
    config.element.hidden = unknown(failure);
    if (!unknown(failure)) trouble(error, failure.message);
  }
}

export const hide = () => poll.stop();

async function look() {
  try {
    const [stats] = await Promise.all([get("/stats"), health.ask()]);
    drawStats(stats);
    trouble(error);
  } catch (failure) {
    trouble(error, unknown(failure) ? "This server does not offer statistics." : failure.message);
    if (unknown(failure)) poll.stop();
  }
}

function drawHealth() {
  const now = health.now;
  if (!now) return;
  const looks = { healthy: "good", loading: "busy", unhealthy: "bad" };
  pairs(facts, {
    Status: h("span", { class: `pill ${looks[now.status]}` }, now.status),
    Engine: now.engine === "preview" ? "Preview (espeak-ng)" : "Dia",
    Model: model(now),
    Copies: now.worker_count,
    ...(now.cluster ? { Machines: now.cluster.hosts, "Lost engines": now.cluster.failovers } : { GPUs: now.gpu_count || "none" }),
    Uptime: now.uptime,
  });
}

function model(now) {
  const words = { failed: "not loaded", resting: "resting, loaded when needed" };
  return words[modelState(now)] ?? (now.loading < 100 ? `${now.loading} % loaded` : "loaded");
}

function drawStats({ requests, performance: speed, resources, replicas }) {
  drawReplicas(replicas);
  named.active.add(health.now?.active_jobs);
  named.cpu.add(resources.cpu_usage);
  named.memory.add(resources.memory_usage);
  resources.gpu_usage.forEach((usage, i) => gpu(`GPU ${i}`, " %", 100).add(usage));
  resources.gpu_memory.forEach((gib, i) => gpu(`GPU ${i} memory`, " GiB").add(gib));
  const times = speed.avg_tokens_per_second / STEPS_A_SECOND;
  pairs(sums, {
    Requests: requests.total.toLocaleString("en"),
    Succeeded: requests.total ? `${requests.success_rate} %` : "–",
    Failed: requests.failed.toLocaleString("en"),
    "Speech made": speed.total_audio_generated,
    "Average request": requests.total ? `${speed.avg_generation_time} s` : "–",
    Speed: times ? `${times < 10 ? times.toFixed(1) : Math.round(times)}× real time` : "–",
  });
}

function drawReplicas(replicas) {
  hosts.hidden = !replicas;
  if (!replicas) return;
  const cells = (tag, values, attributes = {}) => h("tr", {}, ...values.map((value) => h(tag, attributes, value)));
  hosts.replaceChildren(
    h("h2", { id: "hosts-title" }, "Engines"),
    h("table", { class: "engines" },
      h("thead", {}, cells("th", ["Machine", "Speaking", "At most"], { scope: "col" })),
      h("tbody", {}, ...replicas.map(({ host, busy, slots }) => cells("td", [host, busy, slots])))));
}

function gpu(title, unit, most) {
  if (!named[title]) {
    named[title] = new Chart(title, unit, most);
    charts.append(named[title].element);
  }
  return named[title];
}

function pairs(list, values) {
  list.replaceChildren(...Object.entries(values).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}
