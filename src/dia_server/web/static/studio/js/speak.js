// The Speak view: writes a script and plays it.

import { Refusal, send } from "./api.js";
import { Cast } from "./cast.js";
import { Code } from "./code.js";
import { anotherSeed, Delivery } from "./delivery.js";
import { find, h, icon, notice, trouble } from "./dom.js";
import { Editor } from "./editor.js";
import { FORMATS } from "./formats.js";
import { health } from "./health.js";
import { Plan } from "./plan.js";
import { audio, silence } from "./player.js";
import { stopSample } from "./sample.js";
import { AT_HAND, guessSeconds, tagged } from "./script.js";
import { change, onChange, state } from "./state.js";
import { Take } from "./take.js";
import { SOUNDS } from "./vocabulary.js";

let editor;
let take;
let plan;
let limit = Infinity; // maximum characters of a text
let saving = false; // a download is running
let refused = ""; // JSON of the request whose error is shown

export function start() {
  const cast = new Cast(find("cast"));
  editor = new Editor(find("script"), {
    turns: state.turns,
    plain: state.plain,
    name: (speaker) => cast.name(speaker),
    onchange: (turns) => change({ turns }),
  });
  take = new Take(refresh);
  plan = new Plan(find("plan"), request, refresh);
  new Delivery(find("delivery"));
  new Code(find("code"), request);

  sounds();
  writing();
  find("format").append(...Object.entries(FORMATS).map(([value, name]) => h("option", { value }, name)));
  find("format").value = state.format;
  find("format").addEventListener("change", (event) => change({ format: event.target.value }));
  find("download").addEventListener("click", save);
  find("say").addEventListener("click", press);
  find("another").addEventListener("click", () => {
    change({ seed: anotherSeed() });
    say();
  });
  find("queue").addEventListener("click", queue);
  document.addEventListener("keydown", keys);
  // opening the audio device takes a moment, so begin on pointerdown, before the click
  find("say").addEventListener("pointerdown", audio);
  health.addEventListener("change", refresh);

  onChange((changes) => {
    if ("voice" in changes || "voice2" in changes) editor.draw();
    refresh();
  });
  refresh();
}

export const recolour = () => take.recolour();

/** Update the plan, which is not fetched while the view is hidden. */
export const show = () => plan.update();

/** Return the body of POST /generate for the current script and settings. */
export function request() {
  const body = { text: tagged(state.turns), voice_id: state.voice };
  if (state.voice2) body.voice_id_2 = state.voice2;
  if (state.speed !== 1) body.speed = state.speed;
  for (const name of ["temperature", "cfg_scale", "top_p", "seed"]) {
    if (state[name] !== null) body[name] = state[name];
  }
  return body;
}

/** Speak the script; stops the current take. */
async function say() {
  const body = request();
  if (!body.text) return;
  trouble(find("speak-error"));
  try {
    await take.make(body, () => plan.seconds ?? guessSeconds(body.text, body.speed ?? 1));
  } catch (error) {
    fail(error);
  }
}

function fail(error) {
  refused = JSON.stringify(request());
  trouble(find("speak-error"), error.message);
}

/** Handle the main button and its shortcuts. */
function press() {
  if (take.running) take.stop();
  else say();
}

function keys(event) {
  const { key, ctrlKey, metaKey, isComposing } = event;
  if (document.querySelector("dialog[open]") || isComposing) return; // dialogs and input methods use these keys
  if (key === "Escape") {
    take.stop();
    stopSample();
    silence();
  } else if (key === "Enter" && (ctrlKey || metaKey) && location.hash.slice(1) in { "": 1, speak: 1 }) {
    event.preventDefault();
    if (!event.repeat) press();
  }
}

/** Submit the text as a job. */
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
    fail(error);
  }
}

async function save() {
  saving = true;
  refresh();
  try {
    await take.save(find("format").value);
  } catch (error) {
    fail(error);
  } finally {
    saving = false;
    refresh();
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
  const body = request();
  const { text } = body;
  const button = find("say");
  const { making, running } = take;
  const label = running ? "Stop" : "Speak";
  if (button.textContent !== label) {
    button.replaceChildren(icon(running ? "stop" : "play"), label);
    find("say-key").textContent = running ? "Esc" : "Ctrl Enter";
  }
  button.disabled = !running && !text;
  find("another").disabled = find("queue").disabled = !text;
  find("download").disabled = making || saving;
  if (JSON.stringify(body) !== refused) trouble(find("speak-error"));
  trouble(find("foreign"), plan.warning && `${plan.warning}.`);
  measure(text);
}

/** Show the length of the text and whether it exceeds the server's limit. */
function measure(text) {
  const written = [...text].length; // code points, as the server counts; an emoji has length 2 in JavaScript
  limit = health.now?.max_characters ?? limit;
  const over = written > limit;
  const seconds = Math.max(1, Math.round(plan.seconds ?? guessSeconds(text, state.speed)));
  const count = limit === Infinity ? grouped(written) : `${grouped(written)} / ${grouped(limit)}`;
  find("measure").textContent = text ? `About ${seconds} s · ${count} characters` : "Write something to hear it.";
  find("measure").classList.toggle("over", over);
  const words = over ? `Too long: the server takes ${grouped(limit)} characters at once.` : "";
  if (find("too-long").textContent !== words) find("too-long").textContent = words;
}

const grouped = (number) => number.toLocaleString("en");
