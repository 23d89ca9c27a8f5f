// The dialog that asks for an API key. Requests that fail at the same time share one question.

import { find } from "./dom.js";

let asked = null;

export function askForKey() {
  asked ??= new Promise((resolve) => {
    const dialog = find("key");
    dialog.showModal();
    dialog.addEventListener(
      "close",
      () => {
        asked = null;
        resolve(find("key-value").value.trim());
      },
      { once: true },
    );
    // without a key nothing here works, so Escape does not dismiss the question
    dialog.addEventListener("cancel", (event) => event.preventDefault());
  });
  return asked;
}
