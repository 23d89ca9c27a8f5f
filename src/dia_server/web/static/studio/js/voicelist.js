// The server's voices, shared by all views.

import { get } from "./api.js";

/** Styles of the built-in voices by id. */
const BUILT_IN = { aria: "neutral", atlas: "calm", luna: "expressive", kai: "friendly", zara: "deep", nova: "bright" };

export const voicelist = new (class extends EventTarget {
  /** [{id, name, anchor, style, primary_speaker, audio_prompt, audio_prompt_transcript, display_name, partner, builtIn, changed}] */
  all = [];

  async load() {
    const [{ voices }, mappings] = await Promise.all([get("/voices"), get("/voice_mappings")]);
    this.all = voices.map(({ voice_id: id, name, anchor }) => {
      const mapping = mappings[id] ?? {};
      const builtIn = id in BUILT_IN;
      return { id, name, anchor, ...mapping, builtIn, changed: builtIn && (Boolean(mapping.audio_prompt) || mapping.style !== BUILT_IN[id]) };
    });
    this.dispatchEvent(new Event("change"));
  }

  /** Return the server's name of a voice or recording, or one made from its id. */
  name(id) {
    return this.all.find((voice) => voice.id === id)?.name
      ?? id.replace(/[_-]+/g, " ").trim().replace(/\p{L}+/gu, (word) => word[0].toUpperCase() + word.slice(1).toLowerCase());
  }
})();
