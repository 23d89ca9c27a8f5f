// How the server is: asked every few seconds, told in the banner of every view.

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

  /** Have the server load its model again. */
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
    this.#poll.ms = now?.status === "loading" ? EVERY_LOADING : EVERY;
    banner(now);
    this.dispatchEvent(new Event("change"));
  }
})();

function banner(now) {
  const [title, words, bad] = told(now);
  const element = find("banner");
  const text = `${title} ${words} ${now?.retry ?? ""}`;
  if (element.dataset.text !== text) {
    // only what changes is said aloud again
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
  if (now.status === "loading") return ["The model is being loaded:", `${now.loading} %.`, false];
  if (now.status === "unhealthy") return ["The model could not be loaded.", now.error ?? "The server’s log has the cause.", true];
  if (now.loading === 0) {
    return ["The model is resting.", "It left the memory after a while without work. The next request loads it first, which takes a moment.", false];
  }
  if (now.engine === "preview") {
    return ["Preview voice.", "This is espeak-ng, a stand-in that speaks on any machine. Dia itself, with its laughs and cloned voices, needs a GPU.", false];
  }
  return ["", "", false];
}
