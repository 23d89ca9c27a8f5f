// Starts the page and switches between its views.

import { find } from "./dom.js";
import { health } from "./health.js";
import * as speak from "./speak.js";
import { keep } from "./state.js";
import { voicelist } from "./voicelist.js";

const VIEWS = {
  speak: async () => speak,
  voices: () => import("./voices.js"),
  jobs: () => import("./jobs.js"),
  server: () => import("./server.js"),
};
const THEMES = ["auto", "light", "dark"];

let shown = null; // module of the visible view

async function route() {
  const name = location.hash.slice(1) in VIEWS ? location.hash.slice(1) : "speak";
  for (const view of Object.keys(VIEWS)) find(`view-${view}`).hidden = view !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = name === "speak" ? "Dia Studio" : `${name[0].toUpperCase()}${name.slice(1)} · Dia Studio`;
  shown?.hide?.();
  const view = await VIEWS[name]();
  shown = view;
  if (view !== speak) view.start(find(`view-${name}`));
  view.show?.();
}

function theme() {
  const button = find("theme");
  const show = (name) => {
    document.documentElement.dataset.theme = name;
    const label = `Theme: ${name === "auto" ? "as the system" : name}. Change it`;
    button.setAttribute("aria-label", label);
    button.title = label;
  };
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
    keep("dia-theme", next);
    show(next);
    speak.recolour();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => speak.recolour());
  show(document.documentElement.dataset.theme);
}

speak.start();
theme();
addEventListener("hashchange", route);
find("main").parentElement.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the hash is used for the view
  find("main").focus();
});
route();
health.start();
voicelist.load().catch(() => {}); // the banner reports an unreachable server
