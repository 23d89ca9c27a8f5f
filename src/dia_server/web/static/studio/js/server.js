// The Server view: how it is, what it has done, how it is set.

import { get, unknown } from "./api.js";
import { Chart } from "./chart.js";
import { Config } from "./config.js";
import { h, trouble } from "./dom.js";
import { health } from "./health.js";

const EVERY = 2000; // ms

let facts;
let sums;
let charts;
let named;
let config;
let error;
let timer = 0;

export function start(root) {
  if (facts) return;
  facts = h("dl", { class: "facts" });
  sums = h("dl", { class: "facts" });
  named = {
    active: new Chart("Speaking now", ""),
    cpu: new Chart("Processor", " %", 100),
    memory: new Chart("Memory", " %", 100),
  };
  charts = h("div", { class: "charts" }, ...Object.values(named).map((chart) => chart.element));
  config = new Config();
  error = h("p", { class: "trouble", role: "alert", hidden: true });
  root.append(
    h("div", { class: "view-head" }, h("h1", {}, "Server")),
    error, charts,
    h("div", { class: "columns" },
      h("div", { class: "stack" },
        h("section", { class: "card", "aria-labelledby": "health-title" }, h("h2", { id: "health-title" }, "Health"), facts),
        h("section", { class: "card", "aria-labelledby": "done-title" }, h("h2", { id: "done-title" }, "What it has done"), sums)),
      config.element),
  );
  health.addEventListener("change", drawHealth);
}

export async function show() {
  drawHealth();
  tick();
  try {
    await config.load();
  } catch (failure) {
    config.element.hidden = unknown(failure);
    if (!unknown(failure)) trouble(error, failure.message);
  }
}

export function hide() {
  clearTimeout(timer);
}

async function tick() {
  clearTimeout(timer);
  try {
    if (!document.hidden) {
      const [stats] = await Promise.all([get("/stats"), health.ask()]);
      drawStats(stats);
    }
    trouble(error);
  } catch (failure) {
    trouble(error, unknown(failure) ? "This server does not tell statistics." : failure.message);
    if (unknown(failure)) return;
  }
  if (location.hash === "#server") timer = setTimeout(tick, EVERY);
}

function drawHealth() {
  const now = health.now;
  if (!now) return;
  const looks = { healthy: "good", loading: "busy", unhealthy: "bad" };
  pairs(facts, {
    State: h("span", { class: `pill ${looks[now.status]}` }, now.status),
    "What speaks": now.engine === "preview" ? "Preview (espeak-ng)" : "Dia",
    GPUs: now.gpu_count || "none",
    Models: now.worker_count,
    "Up for": now.uptime,
    Version: now.version,
  });
}

function drawStats({ requests, performance: speed, resources }) {
  named.active.add(health.now?.active_jobs);
  named.cpu.add(resources.cpu_usage);
  named.memory.add(resources.memory_usage);
  resources.gpu_usage.forEach((usage, i) => gpu(`GPU ${i}`, " %", 100).add(usage));
  resources.gpu_memory.forEach((gib, i) => gpu(`GPU ${i} memory`, " GiB").add(gib));
  pairs(sums, {
    Requests: requests.total,
    "Answered well": requests.total ? `${requests.success_rate} %` : "–",
    Failed: requests.failed,
    "Speech made": speed.total_audio_generated,
    "Time for one": `${speed.avg_generation_time} s`,
    "Steps a second": speed.avg_tokens_per_second,
  });
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
