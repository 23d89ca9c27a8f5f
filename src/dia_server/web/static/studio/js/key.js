// The dialog that asks for an API key. Requests that fail at the same time share one question.

import { find } from "./dom.js";

let asked = null;

/** Resolves to the entered key; `wrong` shows that the previous one was refused. */
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
    // nothing works without a key, so Escape must not close the dialog
    dialog.addEventListener("cancel", (event) => event.preventDefault());
  });
  return asked;
}
