// How the server is: asked every few seconds, told in the banner of every view.

import { find, h } from "./dom.js";
import { Poll } from "./poll.js";

const EVERY = 5000; // ms

export const health = new (class extends EventTarget {
  now = null;

  start() {
    new Poll(() => this.ask(), EVERY).start();
  }

  async ask() {
    try {
      this.now = await (await fetch("/health")).json();
    } catch {
      this.now = null;
    }
    banner(this.now);
    this.dispatchEvent(new Event("change"));
  }
})();

function banner(now) {
  const [title, words, bad] = told(now);
  const element = find("banner");
  const text = `${title} ${words}`;
  if (element.dataset.text !== text) {
    // only what changes is said aloud again
    element.dataset.text = text;
    element.replaceChildren(h("strong", {}, title), h("span", {}, words));
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
