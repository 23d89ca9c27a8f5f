// Words that are said in another spelling.

import { get, put, remove, send } from "./api.js";
import { field } from "./design.js";
import { download, h, icon, notice, trouble } from "./dom.js";
import { voicelist } from "./voicelist.js";

export class Pronunciations {
  constructor() {
    const input = (id, placeholder) => h("input", { type: "text", id, placeholder, maxlength: 64, required: true, autocomplete: "off" });
    this.word = input("respelled-word", "nguyen");
    this.respelling = input("respelling", "win");
    this.voice = h("select", { id: "respelling-voice" });
    this.file = h("input", { type: "file", id: "respellings-file", accept: ".csv", class: "hidden-label", onchange: () => this.#act(() => this.#import()) });
    this.error = h("p", { class: "trouble", role: "alert", hidden: true });
    this.list = h("ul", { class: "respellings", tabindex: 0, "aria-label": "Pronunciations" });
    this.element = h("form", { class: "card design", "aria-labelledby": "respellings-title", onsubmit: (event) => {
      event.preventDefault();
      this.#act(() => this.#save());
    } },
      h("h2", { id: "respellings-title" }, "Pronunciations"),
      h("p", { class: "quiet small" }, "Is a word said wrong? Write it as it sounds. In lower case it stands for any case."),
      h("div", { class: "fields" }, field("Word", this.word), field("Said as", this.respelling), field("By", this.voice)),
      this.error,
      h("div", { class: "actions" }, h("button", { type: "submit", class: "primary" }, "Add"),
        h("label", { class: "button", for: this.file.id }, icon("file"), "Import CSV"), this.file,
        h("button", { type: "button", onclick: () => this.#act(() => this.#export()) }, icon("save"), "Export CSV")),
      this.list);
    voicelist.addEventListener("change", () => {
      const { value } = this.voice;
      const all = h("option", { value: "" }, "All voices");
      this.voice.replaceChildren(all, ...voicelist.all.map(({ id, name }) => h("option", { value: id }, name)));
      this.voice.value = voicelist.all.some(({ id }) => id === value) ? value : "";
    });
  }

  async load() {
    const { pronunciations } = await get("/pronunciations");
    this.list.hidden = !pronunciations.length;
    this.list.replaceChildren(...pronunciations.map((entry) => this.#row(entry)));
  }

  #row(entry) {
    const { word, respelling, voice_id: voice } = entry;
    const drop = async () => {
      await remove(`/pronunciations?${new URLSearchParams(voice ? { word, voice_id: voice } : { word })}`);
      notice(`“${word}” is said as written.`, () => this.#act(() => put("/pronunciations", entry)));
    };
    return h("li", {}, h("span", {}, h("b", {}, word), ` → ${respelling}`, voice ? h("span", { class: "quiet" }, ` by ${voicelist.name(voice)}`) : null),
      h("span", { class: "push" }),
      h("button", { type: "button", class: "icon danger", title: "Delete", "aria-label": `Delete the pronunciation of ${word}`, onclick: () => this.#act(drop) }, icon("bin")));
  }

  async #save() {
    await put("/pronunciations", { word: this.word.value, respelling: this.respelling.value, voice_id: this.voice.value || null });
    this.word.value = this.respelling.value = "";
    this.word.focus();
  }

  async #import() {
    const form = new FormData();
    form.append("file", this.file.files[0]);
    this.file.value = ""; // the same file can be chosen again
    notice((await (await send("POST", "/pronunciations/import", { form })).json()).message);
  }

  async #export() {
    download(await (await send("GET", "/pronunciations/export")).blob(), "pronunciations.csv");
  }

  async #act(action) {
    trouble(this.error);
    try {
      await action();
      await this.load();
    } catch (failure) {
      trouble(this.error, failure.message);
    }
  }
}
