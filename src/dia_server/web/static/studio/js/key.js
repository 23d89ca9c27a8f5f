// The dialog that asks for an API key. Requests that fail at the same time share one question.

import { find } from "./dom.js";

let asked = null;

/** Resolves to what is entered; `wrong` says that the last one was not a key of this server. */
export function askForKey(wrong) {
  asked ??= new Promise((resolve) => {
    const dialog = find("key");
    find("key-wrong").hidden = !wrong;
    dialog.showModal();
    find("key-value").select();
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
