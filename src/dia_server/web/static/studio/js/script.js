// Converts between turns and tagged text, and finds tags and sounds in it.

import { h } from "./dom.js";
import { SOUND_PATTERN } from "./vocabulary.js";

const TAG = /\[S([12])\]/gi;

/** Number of sounds shown; the button "More sounds" reveals the others. */
export const AT_HAND = 6;

const MARKS = new RegExp(`\\[S[12]\\]|${SOUND_PATTERN}|\\[pause:\\s*[\\d.]+\\s*m?s\\]`, "gi");

/** Split tagged text into turns; speaker `first` says the text before the first tag. */
export function parse(text, first = 1) {
  const [before, ...rest] = text.split(TAG);
  const turns = before.trim() ? [{ speaker: first, text: before.trim() }] : [];
  for (let i = 0; i < rest.length; i += 2) turns.push({ speaker: Number(rest[i]), text: rest[i + 1].trim() });
  return turns.length ? turns : [{ speaker: first, text: "" }];
}

export const hasTag = (text) => text.search(TAG) >= 0;

/** Join turns into tagged text; empty turns are left out. */
export function tagged(turns, between = " ") {
  return turns
    .filter((turn) => turn.text.trim())
    .map((turn) => `[S${turn.speaker}] ${turn.text.trim()}`)
    .join(between);
}

/** Split text into [span, kind] pairs, where kind is "", "sound", "s1" or "s2". */
export function marks(text) {
  const spans = [];
  let at = 0;
  for (const match of text.matchAll(MARKS)) {
    if (match.index > at) spans.push([text.slice(at, match.index), ""]);
    const speaker = /^\[s([12])/i.exec(match[0]);
    spans.push([match[0], speaker ? `s${speaker[1]}` : "sound"]);
    at = match.index + match[0].length;
  }
  spans.push([text.slice(at), ""]);
  return spans;
}

/** Return text as elements, with tags and sounds highlighted. */
export const chips = (text) =>
  marks(text).map(([span, kind]) => (kind ? h("em", { class: `mark ${kind}` }, span.replace(/^\[(S[12])\]$/i, "$1")) : span));

/** Estimate a text's seconds at 15 characters per second, as the server's planner does. */
export const guessSeconds = (text, speed) => text.replace(TAG, "").trim().length / 15 / speed;
