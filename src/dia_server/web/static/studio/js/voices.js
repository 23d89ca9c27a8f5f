// The Voices view: voices, the form for a new one, recordings.

import { post, remove } from "./api.js";
import { Design } from "./design.js";
import { arrange, h, icon, notice, trouble } from "./dom.js";
import { NewVoice } from "./newvoice.js";
import { Prompts } from "./prompts.js";
import { Pronunciations } from "./pronunciations.js";
import { sampleButton, stopSample } from "./sample.js";
import { change } from "./state.js";
import { voicelist } from "./voicelist.js";

let own;
let builtIn;
let form;
let design;
let prompts;
let pronunciations;
let error;
const cards = new Map(); // voice id to {element, seen}

export function start(root) {
  if (form) return;
  own = h("ul", { class: "voices" });
  builtIn = h("ul", { class: "voices" });
  error = h("p", { class: "trouble", role: "alert", hidden: true });
  prompts = new Prompts();
  pronunciations = new Pronunciations();
  form = new NewVoice((id) => {
    prompts.forget(id); // its recording was replaced
    load();
  });
  design = new Design(load);
  root.append(
    h("div", { class: "view-head" }, h("h1", {}, "Voices"),
      h("p", {}, "In a dialogue, a voice's partner speaks for the other side. Make your own voice from a short recording, or design one.")),
    h("div", { class: "columns" },
      h("div", { class: "stack" }, error,
        h("section", {}, h("h2", {}, "Your voices"), own),
        h("section", {}, h("h2", {}, "Voices that come with it"), builtIn),
        design.element,
        h("section", {}, h("h2", {}, "Recordings"), prompts.element),
        pronunciations.element),
      form.element),
  );
  voicelist.addEventListener("change", draw);
}

export function show() {
  design.show();
  return load();
}

export function hide() {
  stopSample();
  form.leave();
  design.leave();
  prompts.leave();
}

async function load() {
  try {
    await Promise.all([voicelist.load(), prompts.load(), pronunciations.load()]);
    trouble(error);
  } catch (failure) {
    trouble(error, failure.message);
  }
}

function draw() {
  const ids = new Set(voicelist.all.map((voice) => voice.id));
  for (const id of cards.keys()) if (!ids.has(id)) cards.delete(id);
  const element = (voice) => {
    const seen = JSON.stringify(voice);
    if (cards.get(voice.id)?.seen !== seen) cards.set(voice.id, { seen, element: card(voice) });
    return cards.get(voice.id).element;
  };
  arrange(own, voicelist.all.filter((voice) => !voice.builtIn).map(element));
  arrange(builtIn, voicelist.all.filter((voice) => voice.builtIn).map(element));
  own.parentElement.hidden = !own.children.length;
}

function card(voice) {
  return h("li", { class: "card voice" },
    sampleButton("round small", `Try ${voice.name}`, () => [voice.id]),
    h("div", { class: "name" }, h("h3", {}, voice.name),
      h("p", { class: "quiet small" }, voice.style)),
    h("button", { type: "button", onclick: () => {
      change({ voice: voice.id });
      location.hash = "speak";
    }, "aria-label": `Cast ${voice.name} as speaker 1` }, "Cast"),
    voice.changed
      ? h("button", { type: "button", class: "ghost", "aria-label": `Reset ${voice.name}`, onclick: () => drop(voice, `${voice.name} is as it came.`) }, "Reset")
      : null,
    voice.builtIn
      ? null
      : h("button", { type: "button", class: "icon danger", title: "Delete", "aria-label": `Delete the voice ${voice.name}`,
        onclick: () => drop(voice, `${voice.name} is deleted; its recording is kept.`) }, icon("bin")));
}

/** Delete a voice; the server resets a built-in one. */
async function drop({ id, style, primary_speaker, audio_prompt, audio_prompt_transcript, display_name, partner }, done) {
  const mapping = { voice_id: id, style, primary_speaker, audio_prompt, audio_prompt_transcript, display_name, partner };
  const attempt = async (action) => {
    try {
      await action();
      await voicelist.load();
      trouble(error);
      return true;
    } catch (failure) {
      trouble(error, failure.message);
      return false;
    }
  };
  if (await attempt(() => remove(`/voice_mappings/${id}`))) notice(done, () => attempt(() => post("/voice_mappings", mapping)));
}
