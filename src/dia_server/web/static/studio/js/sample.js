// A button that plays a sample sentence of a voice.

import { send } from "./api.js";
import { h, icon, notice } from "./dom.js";
import { audio, Player } from "./player.js";
import { voicelist } from "./voicelist.js";
import { read } from "./wav.js";

const player = new Player();
let current = null; // {button, abort} of the requested or playing sample

player.addEventListener("change", () => {
  if (player.playing) current?.button.removeAttribute("aria-busy");
  else stopSample(); // it has ended, or another player has started
});

/** Create a button that plays or stops a sample; `cast()` returns the voice's id and the speaker, if any. */
export function sampleButton(look, label, cast) {
  const button = h("button", { type: "button", class: look, onclick: () => {
    const mine = current?.button === button;
    stopSample();
    if (!mine) sample(button, ...cast());
  } });
  button.dataset.label = label;
  dress(button, false);
  return button;
}

export function stopSample() {
  if (!current) return;
  const { button, abort } = current;
  current = null;
  abort.abort();
  player.pause();
  dress(button, false);
}

async function sample(button, voice, speaker) {
  audio();
  const mine = (current = { button, abort: new AbortController() });
  dress(button, true);
  const text = speaker && `[S${speaker}] Hello, ${speaker === 1 ? `I am ${voicelist.name(voice)}` : "I am the second speaker"}. It is good to meet you.`;
  try {
    const { signal } = mine.abort;
    const response = await (speaker
      ? send("POST", "/generate", { json: { text, voice_id: voice, stream: true }, signal })
      : send("GET", `/voices/${voice}/preview`, { signal }));
    for await (const piece of read(response)) {
      if (piece.rate) {
        player.begin(piece.rate);
        player.play();
      } else player.append(piece);
    }
    player.end();
  } catch (error) {
    if (error.name === "AbortError") return;
    stopSample();
    notice(error.message);
  }
}

function dress(button, on) {
  const { label } = button.dataset;
  button.setAttribute("aria-label", on ? `Stop: ${label}` : label);
  button.title = on ? "Stop" : "Listen";
  button.toggleAttribute("aria-busy", false);
  if (on) button.setAttribute("aria-busy", "true");
  button.replaceChildren(icon(on ? "stop" : "play"));
}
