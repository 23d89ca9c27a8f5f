// Confirmation dialog before something that cannot be undone.

import { h } from "./dom.js";

/** Resolves to true if the user presses the button labelled `yes`; Escape counts as no. */
export function ask(title, words, yes, no = "No, keep it") {
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-labelledby": "ask-title", "aria-describedby": "ask-words", onclose: () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    } },
      h("form", { method: "dialog" },
        h("h2", { id: "ask-title" }, title),
        h("p", { id: "ask-words" }, words),
        h("p", { class: "actions" },
          h("button", { type: "submit", value: "no", autofocus: true }, no),
          h("button", { type: "submit", value: "yes", class: "primary" }, yes))));
    document.body.append(dialog);
    dialog.showModal();
  });
}
