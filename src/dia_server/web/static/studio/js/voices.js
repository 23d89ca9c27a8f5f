// The Voices view: all voices, a new one, the recordings they are made of.

import { post, remove } from "./api.js";
import { h, icon, notice, trouble } from "./dom.js";
import { NewVoice } from "./newvoice.js";
import { Prompts } from "./prompts.js";
import { sample } from "./sample.js";
import { change } from "./state.js";
import { voicelist } from "./voicelist.js";

const BUILT_IN = ["aria", "atlas", "luna", "kai", "zara", "nova"];

let list;
let form;
let prompts;
let error;

export function start(root) {
  if (list) return;
  list = h("ul", { class: "voices" });
  error = h("p", { class: "trouble", role: "alert", hidden: true });
  form = new NewVoice(load);
  prompts = new Prompts(async (id) => {
    await post("/voice_mappings", { voice_id: id, style: "recorded", audio_prompt: id });
    await voicelist.load();
  });
  root.append(
    h("div", { class: "view-head" }, h("h1", {}, "Voices"),
      h("p", {}, "Each voice is a pair of people for the two sides of a dialogue. Make your own from a short recording.")),
    h("div", { class: "columns" },
      h("div", { class: "stack" }, list, error, h("h2", {}, "Recordings"), prompts.element),
      form.element),
  );
  voicelist.addEventListener("change", draw);
}

export const show = () => load();

export function hide() {
  form.leave();
  prompts.leave();
}

async function load() {
  try {
    await Promise.all([voicelist.load(), prompts.load()]);
    trouble(error);
  } catch (failure) {
    trouble(error, failure.message);
  }
}

function draw() {
  list.replaceChildren(...voicelist.all.map(card));
}

function card(voice) {
  const builtIn = BUILT_IN.includes(voice.id);
  return h("li", { class: "card voice" },
    h("button", { type: "button", class: "round small", "aria-label": `Try ${voice.name}`, title: "Try it", onclick: () => sample(voice.id) }, icon("play")),
    h("div", { class: "who" }, h("h2", {}, voice.name),
      h("p", { class: "quiet small" }, voice.style)),
    h("button", { type: "button", class: "ghost", onclick: () => {
      change({ voice: voice.id });
      location.hash = "speak";
    }, "aria-label": `Cast ${voice.name} as speaker 1` }, "Cast"),
    builtIn ? null : h("button", { type: "button", class: "icon danger", title: "Delete", "aria-label": `Delete the voice ${voice.name}`, onclick: async () => {
      try {
        await remove(`/voice_mappings/${voice.id}`);
        notice(`${voice.name} is deleted; its recording is kept.`);
        await voicelist.load();
      } catch (failure) {
        trouble(error, failure.message);
      }
    } }, icon("bin")));
}
