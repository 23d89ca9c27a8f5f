// Polls the server's health and shows it in the banner of every view.

import { post } from "./api.js";
import { find, h, notice } from "./dom.js";
import { Poll } from "./poll.js";

const EVERY = 5000; // ms
const EVERY_LOADING = 1000;

export const health = new (class extends EventTarget {
  now = null;

  #poll = new Poll(() => this.ask(), EVERY);

  start() {
    this.#poll.start();
  }

  async ask() {
    try {
      this.#tell(await (await fetch("/health")).json());
    } catch {
      this.#tell(null);
    }
  }

  /** Ask the server to load its model again. */
  async retry(event) {
    event.target.disabled = true;
    try {
      this.#tell(await post(this.now.retry));
      this.#poll.start();
    } catch (failure) {
      notice(failure.message);
    }
    event.target.disabled = false;
    if (!event.target.isConnected) find("main").focus();
  }

  #tell(now) {
    this.now = now;
    this.#poll.ms = now && modelState(now) === "loading" ? EVERY_LOADING : EVERY;
    banner(now);
    this.dispatchEvent(new Event("change"));
  }
})();

/** Return the model's state: "failed", "loading", "resting" (unloaded while idle) or "loaded". */
export function modelState({ status, loading }) {
  if (status === "unhealthy") return "failed";
  if (status === "loading") return "loading";
  return loading === 0 ? "resting" : "loaded";
}

function banner(now) {
  const [title, words, bad] = told(now);
  const element = find("banner");
  const text = `${title} ${words} ${now?.retry ?? ""}`;
  if (element.dataset.text !== text) {
    // unchanged text must not be announced again
    element.dataset.text = text;
    element.replaceChildren(h("strong", {}, title), h("span", {}, words));
    if (now?.retry) element.append(h("button", { type: "button", onclick: (event) => health.retry(event) }, "Try again"));
  }
  element.className = bad ? "bad" : "";
  element.hidden = !title;
  find("version").textContent = now ? `dia-server ${now.version}` : "";
}

function told(now) {
  if (!now) return ["The server does not answer.", "Is it still running? This page tries again by itself.", true];
  const model = modelState(now);
  if (model === "loading") return ["The model is being loaded:", `${now.loading} %.`, false];
  if (model === "failed") return ["The model could not be loaded.", now.error ?? "The server’s log has the cause.", true];
  if (model === "resting") {
    return ["The model is resting.", "It was unloaded after some time without work. The next request loads it, which takes a moment.", false];
  }
  if (now.engine === "preview") {
    return ["Preview voice.", "This is espeak-ng, a stand-in that speaks on any machine. Dia itself, with its laughs and cloned voices, needs a GPU.", false];
  }
  return ["", "", false];
}
