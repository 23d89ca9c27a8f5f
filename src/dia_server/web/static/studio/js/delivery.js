// Settings of the delivery: speed, sampling parameters, seed.

import { h, icon } from "./dom.js";
import { health } from "./health.js";
import { change, onChange, state } from "./state.js";

const SPEED = ["speed", "Speed", 0.25, 4, 0.05, 1, "The pitch stays."];
const SAMPLING = [
  ["temperature", "Temperature", 0.1, 2, 0.05, 1.2, "Low is even, high is lively."],
  ["cfg_scale", "Guidance", 1, 10, 0.1, 3, "How closely the text is followed (cfg)."],
  ["top_p", "Top-p", 0, 1, 0.01, 0.95, "Leaves out unlikely sounds."],
];
const LARGEST_SEED = 2 ** 32 - 1;

export const anotherSeed = () => Math.floor(Math.random() * 1e6);

export class Delivery {
  constructor(root) {
    this.root = root;
    this.why = h("p", { class: "hint", id: "sampling-why" }, "The preview voice has no sampling: these three are for Dia.");
    this.draw();
    health.addEventListener("change", () => this.#drawSampling());
    onChange((changes) => {
      if ("seed" in changes && document.activeElement !== this.seed) this.seed.value = state.seed ?? "";
    });
  }

  draw() {
    this.root.replaceChildren(
      this.#slider(...SPEED),
      (this.sampling = h("fieldset", {}, h("legend", { class: "hidden-label" }, "Sampling"), this.why,
        ...SAMPLING.map((slider) => this.#slider(...slider)))),
      this.#seed(),
      h("button", { type: "button", class: "ghost", onclick: () => {
        change({ speed: 1, temperature: null, cfg_scale: null, top_p: null, seed: null });
        this.draw();
      } }, "Back to the defaults"),
    );
    this.#drawSampling();
  }

  /** Disable the sampling parameters for the preview engine, which ignores them. */
  #drawSampling() {
    const off = health.now?.engine === "preview";
    this.sampling.disabled = off;
    this.why.hidden = !off;
    for (const slider of this.sampling.querySelectorAll("input")) {
      slider.setAttribute("aria-describedby", `${slider.id}-hint${off ? ` ${this.why.id}` : ""}`);
    }
  }

  #slider(name, label, min, max, step, usual, hint) {
    const output = h("output", { for: name });
    const show = () => {
      const value = state[name] ?? usual;
      output.textContent = name === "speed" ? `${value}×` : `${value}`;
    };
    show();
    return h("div", { class: "slider" },
      h("label", { for: name }, label),
      output,
      h("input", {
        type: "range", id: name, min, max, step, value: state[name] ?? usual, "aria-describedby": `${name}-hint`,
        oninput: (event) => {
          change({ [name]: Number(event.target.value) });
          show();
        },
      }),
      h("span", { class: "quiet", id: `${name}-hint` }, hint),
    );
  }

  #seed() {
    const field = (this.seed = h("input", {
      type: "number", id: "seed", min: 0, max: LARGEST_SEED, step: 1, placeholder: "the voice’s own", value: state.seed ?? "",
      oninput: () => change({ seed: field.value === "" || !field.validity.valid ? null : Number(field.value) }),
    }));
    return h("div", { class: "seed" },
      h("label", { for: "seed" }, "Seed"),
      h("span"),
      field,
      h("button", {
        type: "button", title: "Another seed", "aria-label": "Another seed",
        onclick: () => change({ seed: anotherSeed() }),
      }, icon("dice")),
      h("span", { class: "quiet small" }, "The same seed gives the same take."),
    );
  }
}
