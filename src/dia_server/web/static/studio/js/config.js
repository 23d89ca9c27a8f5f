// A form with the fields of GET /config.

import { get, put, remove } from "./api.js";
import { find, h, notice, trouble } from "./dom.js";
import { LABELS } from "./words.js";

const FIELDS = {
  Outputs: {
    save_outputs: ["Speech made under Speak is kept as a job, too."],
    output_retention_hours: ["0 keeps everything.", { min: 0, max: 87600 }],
  },
  Recordings: {
    auto_discover_prompts: [],
    auto_transcribe: [],
    whisper_model_size: ["", ["tiny", "base", "small", "medium", "large-v3", "turbo"]],
  },
  Model: {
    torch_compile_enabled: [],
    gpu_mode: ["", ["auto", "single", "multi"]],
    worker_count: ["One for each GPU; 0 for all.", { min: 0, max: 64 }],
  },
  Log: {
    show_prompts: ["The log then has every text that is spoken."],
    debug_mode: [],
  },
};

export class Config {
  constructor() {
    this.fields = h("div", { class: "fields" });
    this.error = h("p", { class: "trouble", role: "alert", hidden: true });
    this.restart = h("p", { class: "hint", role: "status", hidden: true });
    this.save = h("button", { type: "submit", class: "primary", id: "save-config", disabled: true }, "Save");
    this.element = h("form", { class: "card config", "aria-labelledby": "config-title",
      oninput: () => {
        trouble(this.error);
        this.#drawSave();
      },
      onsubmit: (event) => this.#save(event) },
      h("h2", { id: "config-title" }, "Configuration"), this.fields, this.restart, this.error, this.save);
  }

  async load() {
    this.#draw(await get("/config"));
  }

  /** Show `config` with the unsaved `edits` on top. */
  #draw(config, edits = {}) {
    this.config = config;
    const shown = { ...config, ...edits };
    this.fields.replaceChildren(...Object.entries(FIELDS).map(([group, fields]) =>
      h("fieldset", {}, h("legend", {}, group), ...Object.entries(fields).filter(([name]) => name in config).map(([name, field]) =>
        this.#field(name, shown[name], ...field)))));
    const waiting = (config.restart_required ?? []).map((name) => LABELS[name] ?? name);
    this.restart.textContent = `Used after the server’s next start: ${waiting.join(", ")}.`;
    this.restart.hidden = !waiting.length;
    this.#drawSave();
  }

  #drawSave() {
    this.save.disabled = !Object.keys(this.#changes()).length;
  }

  #field(name, value, hint, kind) {
    const label = LABELS[name];
    const id = `config-${name}`;
    const variable = this.config.overridden?.[name];
    const common = { id, name, "aria-describedby": hint || variable ? `${id}-hint` : null };
    const note = (hint || variable) && h("span", { class: "quiet small", id: `${id}-hint` }, hint,
      variable && h("span", { class: "overridden" }, `${variable} says otherwise, but what was saved here wins.`,
        h("button", { type: "button", onclick: () => this.#giveUp(name, variable) }, `Use ${variable}`)));
    if (typeof value === "boolean") {
      return h("div", { class: "field check" }, h("input", { type: "checkbox", ...common, checked: value }), h("label", { for: id }, label), note);
    }
    if (Array.isArray(kind)) {
      const choices = kind.includes(value) ? kind : [value, ...kind];
      const select = h("select", common, ...choices.map((choice) => h("option", { value: choice }, choice)));
      select.value = value;
      return h("div", { class: "field" }, h("label", { for: id }, label), select, note);
    }
    return h("div", { class: "field" }, h("label", { for: id }, label), h("input", { type: "number", required: true, ...common, ...kind, value }), note);
  }

  #changes() {
    const changes = {};
    for (const input of this.fields.querySelectorAll("[name]")) {
      const value = input.type === "checkbox" ? input.checked : input.type === "number" ? input.valueAsNumber : input.value;
      if (value !== this.config[input.name]) changes[input.name] = value;
    }
    return changes;
  }

  /** Delete the field's stored value, so that its environment variable takes effect again. */
  async #giveUp(name, variable) {
    trouble(this.error);
    const { [name]: _, ...edits } = this.#changes();
    try {
      this.#draw(await remove(`/config/${name}`), edits);
      notice(`${LABELS[name]}: ${variable} holds again.`);
      find(`config-${name}`).focus();
    } catch (failure) {
      trouble(this.error, failure.message);
    }
  }

  async #save(event) {
    event.preventDefault();
    trouble(this.error);
    try {
      this.#draw(await put("/config", this.#changes()));
      notice("Saved.");
    } catch (failure) {
      trouble(this.error, failure.message);
    }
  }
}
