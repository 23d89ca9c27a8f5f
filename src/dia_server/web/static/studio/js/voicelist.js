// The voices the server has, shared by the views.

import { get } from "./api.js";

export const voicelist = new (class extends EventTarget {
  /** [{id, name, style, primary_speaker, audio_prompt, …}] */
  all = [];

  async load() {
    const [{ voices }, mappings] = await Promise.all([get("/voices"), get("/voice_mappings")]);
    this.all = voices.map(({ voice_id: id, name }) => ({ id, name, ...mappings[id] }));
    this.dispatchEvent(new Event("change"));
  }

  name(id) {
    return this.all.find((voice) => voice.id === id)?.name ?? id.charAt(0).toUpperCase() + id.slice(1);
  }
})();
