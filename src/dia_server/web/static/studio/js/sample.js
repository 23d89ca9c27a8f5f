// A sentence to get to know a voice by.

import { send } from "./api.js";
import { notice } from "./dom.js";
import { audio, Player } from "./player.js";
import { voicelist } from "./voicelist.js";
import { read } from "./wav.js";

const player = new Player();
let waiting = null;

/** Let a voice introduce itself; asked again meanwhile, the first one is dropped. */
export async function sample(voice, speaker = 1) {
  audio();
  waiting?.abort();
  const mine = (waiting = new AbortController());
  const text = `[S${speaker}] Hello, ${speaker === 1 ? `I am ${voicelist.name(voice)}` : "I am the second speaker"}. It is good to meet you.`;
  try {
    const response = await send("POST", "/generate", { json: { text, voice_id: voice, stream: true }, signal: mine.signal });
    for await (const piece of read(response)) {
      if (piece.rate) {
        player.begin(piece.rate);
        player.play();
      } else player.append(piece);
    }
    player.end();
  } catch (error) {
    if (error.name !== "AbortError") notice(error.message);
  }
}
