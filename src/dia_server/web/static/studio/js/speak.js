// The Speak view: from the script to sound.

import { Refusal, send } from "./api.js";
import { Cast } from "./cast.js";
import { Code } from "./code.js";
import { Delivery } from "./delivery.js";
import { download, find, h, icon, notice, trouble } from "./dom.js";
import { Editor } from "./editor.js";
import { fileName, FORMATS } from "./formats.js";
import { Plan } from "./plan.js";
import { audio } from "./player.js";
import { AT_HAND, guessSeconds, SOUNDS, tagged } from "./script.js";
import { Stage } from "./stage.js";
import { change, onChange, state } from "./state.js";
import { read, write } from "./wav.js";

let editor;
let stage;
let plan;
let making = null; // the AbortController of what is being made
let made = null; // the request whose audio is on the stage

export function start() {
  const cast = new Cast(find("cast"));
  editor = new Editor(find("script"), {
    turns: state.turns,
    plain: state.plain,
    name: (speaker) => cast.name(speaker),
    onchange: (turns) => change({ turns }),
  });
  stage = new Stage();
  plan = new Plan(find("plan"), request, refresh);
  new Delivery(find("delivery"));
  new Code(find("code"), request);

  sounds();
  writing();
  find("format").append(...Object.entries(FORMATS).map(([value, name]) => h("option", { value }, name)));
  find("format").value = state.format;
  find("format").addEventListener("change", (event) => change({ format: event.target.value }));
  find("download").addEventListener("click", save);
  find("say").addEventListener("click", say);
  find("queue").addEventListener("click", queue);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && location.hash.slice(1) in { "": 1, speak: 1 }) {
      event.preventDefault();
      say();
    }
  });
  // the audio device takes a moment to open: do it on the way to the button
  find("say").addEventListener("pointerdown", audio);

  onChange((changes) => {
    if ("voice" in changes || "voice2" in changes) editor.draw();
    refresh();
  });
  refresh();
}

export const recolour = () => stage.recolour();

/** Ask for the plan anew; while the view is not seen nothing asks. */
export const show = () => plan.update();

/** The body of POST /generate for what is written and chosen now. */
export function request() {
  const body = { text: tagged(state.turns), voice_id: state.voice };
  if (state.voice2) body.voice_id_2 = state.voice2;
  if (state.speed !== 1) body.speed = state.speed;
  for (const name of ["temperature", "cfg_scale", "top_p", "seed"]) {
    if (state[name] !== null) body[name] = state[name];
  }
  return body;
}

async function say() {
  if (making) return making.abort();
  const body = request();
  if (!body.text) return;
  audio();
  making = new AbortController();
  trouble(find("speak-error"));
  const before = find("facts").textContent;
  stage.wait();
  told("Waiting for the first sound…");
  refresh();
  const asked = performance.now();
  let seed = null; // known once the server has begun to answer; until then the last take stays
  let first = null;
  try {
    const response = await send("POST", "/generate", {
      json: { ...body, response_format: "wav", stream: true },
      signal: making.signal,
    });
    for await (const piece of read(response)) {
      if (piece.rate) {
        seed = Number(response.headers.get("X-Seed") ?? body.seed ?? 0);
        made = { ...body, seed };
        stage.begin(piece.rate, plan.seconds ?? guessSeconds(body.text, body.speed ?? 1));
        continue;
      }
      first ??= performance.now() - asked;
      stage.append(piece);
      told("Being made while you listen");
    }
    if (first === null) throw new Refusal("The server sent no sound.");
    told(facts(seed, first, performance.now() - asked));
  } catch (error) {
    const stopped = error.name === "AbortError";
    if (stopped) stage.player.pause();
    else trouble(find("speak-error"), error instanceof Refusal ? error.message : "The connection broke while it was made.");
    const part = "Stopped. WAV is what was made by then; other formats are made anew, as a whole.";
    told(seed === null ? before : stopped ? part : "");
  } finally {
    making = null;
    stage.end();
    refresh();
  }
}

/** Say of the take what is known by now; what is said already is not said aloud again. */
function told(words) {
  if (find("facts").textContent !== words) find("facts").textContent = words;
}

function facts(seed, first, whole) {
  const times = (1000 * stage.player.duration) / whole;
  return `First sound after ${(first / 1000).toFixed(2)} s · made ${times < 10 ? times.toFixed(1) : Math.round(times)}× as fast as it plays · seed ${seed}`;
}

/** Have the text made where nobody waits for it. */
async function queue() {
  trouble(find("speak-error"));
  try {
    const response = await send("POST", "/generate?async_mode=true", {
      json: { ...request(), response_format: find("format").value },
    });
    if (!response.headers.get("Content-Type")?.includes("json")) throw new Refusal("This server does not keep jobs.");
    notice("The job is in the queue.");
    location.hash = "jobs";
  } catch (error) {
    trouble(find("speak-error"), error.message);
  }
}

async function save() {
  const format = find("format").value;
  const name = fileName("dialogue", format);
  if (format === "wav") return download(write(stage.player.samples, stage.player.rate), name);
  const button = find("download");
  button.disabled = true;
  try {
    // the same request with the same seed is the same audio, if it is streamed too: what is made as a whole
    // may be made again until it is good
    const response = await send("POST", "/generate", { json: { ...made, response_format: format, stream: true } });
    download(await response.blob(), name);
  } catch (error) {
    trouble(find("speak-error"), error.message);
  } finally {
    button.disabled = false;
  }
}

function sounds() {
  const button = (words, mark) =>
    h("button", { type: "button", "aria-label": `Insert ${words}`, onclick: () => editor.insert(mark) }, words);
  const [near, far] = [SOUNDS.slice(0, AT_HAND), SOUNDS.slice(AT_HAND)];
  const rest = far.map((sound) => h("button", { type: "button", hidden: true, "aria-label": `Insert ${sound}`, onclick: () => editor.insert(`(${sound})`) }, sound));
  const more = h("button", {
    type: "button",
    class: "more",
    "aria-expanded": "false",
    onclick: () => {
      const open = more.getAttribute("aria-expanded") === "false";
      more.setAttribute("aria-expanded", open);
      more.textContent = open ? "Fewer" : "More sounds";
      for (const sound of rest) sound.hidden = !open;
    },
  }, "More sounds");
  find("sounds").append(...near.map((sound) => button(sound, `(${sound})`)), button("pause", "[pause:1s]"), ...rest, more);
}

function writing() {
  const press = (plain) => {
    find("as-turns").setAttribute("aria-pressed", !plain);
    find("as-text").setAttribute("aria-pressed", plain);
  };
  const choose = (plain) => {
    change({ plain });
    editor.setPlain(plain);
    press(plain);
  };
  find("as-turns").addEventListener("click", () => choose(false));
  find("as-text").addEventListener("click", () => choose(true));
  find("clear-script").addEventListener("click", () => editor.clear());
  press(state.plain);
}

function refresh() {
  const { text } = request();
  const button = find("say");
  const label = making ? "Stop" : "Speak";
  if (button.textContent !== label) button.replaceChildren(icon(making ? "stop" : "play"), label);
  button.disabled = !making && !text;
  find("queue").disabled = !text;
  find("download").disabled = Boolean(making);
  const seconds = Math.max(1, Math.round(plan.seconds ?? guessSeconds(text, state.speed)));
  find("measure").textContent = !text
    ? "Write something to hear it."
    : `About ${seconds} s · ${text.length} characters`;
}
