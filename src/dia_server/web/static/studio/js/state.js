// State that survives a reload: in localStorage, and the API key in sessionStorage, for this tab only.

const NAME = "dia-studio";
const KEY = "dia-key";

const FIRST = {
  turns: [
    { speaker: 1, text: "Did you hear that?" },
    { speaker: 2, text: "(laughs) It was only the wind. Come on, the kettle is still warm." },
    { speaker: 1, text: "You always say that." },
  ],
  plain: false,
  voice: "aria",
  voice2: "",
  speed: 1,
  temperature: null,
  cfg_scale: null,
  top_p: null,
  seed: null,
  format: "mp3",
  language: "curl",
};

const listeners = new Set();

export const state = { ...FIRST, ...stored(), key: storedKey() };

export function change(changes) {
  Object.assign(state, changes);
  const { key, ...lasting } = state;
  keep(NAME, JSON.stringify(lasting));
  keep(KEY, key, "sessionStorage");
  for (const listener of listeners) listener(changes);
}

export function keep(name, value, storage = "localStorage") {
  try {
    window[storage].setItem(name, value);
  } catch {
    // private windows and full disks: the page works without storage
  }
}

/** Call `listener` with each change from now on. */
export function onChange(listener) {
  listeners.add(listener);
}

function storedKey() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

function stored() {
  try {
    const found = JSON.parse(localStorage.getItem(NAME)) ?? {};
    if (!Array.isArray(found.turns) || !found.turns.length) delete found.turns;
    return found;
  } catch {
    return {};
  }
}
