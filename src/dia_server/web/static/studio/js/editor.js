// The script editor: a list of turns, each with speaker and text, or one plain text.

import { h, icon, notice } from "./dom.js";
import { hasTag, marks, parse, tagged } from "./script.js";

export class Editor {
  /** `onchange(turns)` is called after each edit; `name(speaker)` returns the name of a voice. */
  constructor(root, { turns, plain, name, onchange }) {
    this.root = root;
    this.turns = turns.map((turn) => ({ ...turn }));
    this.plain = plain;
    this.name = name;
    this.onchange = onchange;
    this.current = 0;
    this.draw();
  }

  setPlain(plain) {
    this.plain = plain;
    this.draw();
  }

  /** Insert a sound or a pause at the last cursor position. */
  insert(mark) {
    const fields = this.root.querySelectorAll("textarea");
    const field = fields[Math.min(this.current, fields.length - 1)];
    const { selectionStart: start, selectionEnd: end, value } = field;
    const before = start && !/\s$/.test(value.slice(0, start)) ? " " : "";
    const after = /^\s/.test(value.slice(end)) ? "" : " ";
    field.focus();
    field.setRangeText(before + mark + after, start, end, "end");
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }

  draw() {
    this.root.className = this.plain ? "plain" : "";
    if (this.plain) this.root.replaceChildren(this.#text());
    else {
      this.root.replaceChildren(
        h("ol", {}, ...this.turns.map((turn, i) => this.#turn(turn, i))),
        h("button", { type: "button", class: "ghost add-turn", onclick: () => this.#add(this.turns.length - 1) },
          icon("plus"), "Add a turn"),
      );
    }
  }

  #text() {
    const { line } = field(tagged(this.turns, "\n"), {
      "aria-label": "Dialogue, with [S1] and [S2] before what each speaker says",
      placeholder: "[S1] Hello! [S2] (laughs) Hello yourself.",
      oninput: (event) => {
        this.turns = parse(event.target.value);
        this.#changed();
      },
    });
    return line;
  }

  #turn(turn, i) {
    const { line } = field(turn.text, {
      "aria-label": `Turn ${i + 1}, speaker ${turn.speaker}`,
      placeholder: i ? "…" : "What is said first?",
      rows: 1,
      onfocus: () => { this.current = i; },
      onkeydown: (event) => this.#key(event, i),
      oninput: (event) => {
        turn.text = event.target.value;
        if (hasTag(turn.text)) return this.#split(i);
        this.#changed();
      },
    });
    const voice = this.name(turn.speaker);
    return h("li", { class: `turn s${turn.speaker}` },
      h("button", {
        type: "button",
        class: "chip",
        title: "Give this turn to the other speaker",
        "aria-label": `S${turn.speaker} ${voice} says turn ${i + 1}; give it to the other speaker`,
        onclick: () => this.#swap(i),
      }, h("b", {}, `S${turn.speaker}`), " ", h("span", {}, voice)),
      line,
      h("button", {
        type: "button", class: "icon", title: "Remove this turn", "aria-label": `Remove turn ${i + 1}`,
        onclick: () => this.#remove(i),
      }, icon("close")),
    );
  }

  #key(event, i) {
    const { selectionStart: at, selectionEnd: end, value } = event.target;
    const plainKey = !event.shiftKey && !event.ctrlKey && !event.metaKey && !event.isComposing;
    if (event.key === "Enter" && plainKey) {
      event.preventDefault();
      this.turns[i].text = value.slice(0, at).trimEnd();
      this.#add(i, value.slice(end).trimStart());
    } else if (event.key === "Backspace" && at === 0 && end === 0 && i > 0) {
      event.preventDefault();
      const before = this.turns[i - 1];
      const cursor = before.text.length;
      before.text = [before.text, value].filter(Boolean).join(" ");
      this.turns.splice(i, 1);
      this.#redraw(i - 1, cursor);
    } else if (event.key === "ArrowUp" && at === 0 && i > 0) {
      event.preventDefault();
      this.#focus(i - 1);
    } else if (event.key === "ArrowDown" && at === value.length && i < this.turns.length - 1) {
      event.preventDefault();
      this.#focus(i + 1, 0);
    }
  }

  /** Split the text into turns after a tag was typed or pasted. */
  #split(i) {
    const found = parse(this.turns[i].text, this.turns[i].speaker);
    this.turns.splice(i, 1, ...found);
    this.#redraw(i + found.length - 1);
  }

  #add(after, text = "") {
    this.turns.splice(after + 1, 0, { speaker: 3 - (this.turns[after]?.speaker ?? 2), text });
    this.#redraw(after + 1, 0);
  }

  /** Clear the dialogue; Undo inserts the old turns before those written since. */
  clear() {
    const before = this.turns;
    this.turns = [{ speaker: 1, text: "" }];
    this.#redraw(0);
    if (tagged(before)) notice("The dialogue is cleared.", () => this.#putBack(0, before));
  }

  #putBack(at, turns) {
    this.turns = this.turns.filter((turn) => turn.text.trim());
    this.turns.splice(at, 0, ...turns);
    this.#redraw(Math.min(at, this.turns.length - 1));
  }

  #remove(i) {
    const [gone] = this.turns.splice(i, 1);
    if (gone.text.trim()) notice("The turn is removed.", () => this.#putBack(i, [gone]));
    if (!this.turns.length) this.turns.push({ speaker: 1, text: "" });
    this.#redraw(Math.max(0, i - 1));
  }

  #swap(i) {
    this.turns[i].speaker = 3 - this.turns[i].speaker;
    this.draw();
    this.root.querySelectorAll(".chip")[i].focus();
    this.#changed();
  }

  #redraw(focus, cursor) {
    this.draw();
    this.#focus(focus, cursor);
    this.#changed();
  }

  #focus(i, cursor) {
    const fields = this.root.querySelectorAll("textarea");
    const target = fields[Math.min(i, fields.length - 1)]; // plain text has one field
    target.focus();
    target.setSelectionRange(cursor ?? target.value.length, cursor ?? target.value.length);
  }

  #changed() {
    this.onchange(this.turns);
  }
}

/** A text field over an underlay of the same words that highlights the sounds and sets the height. */
function field(value, attributes) {
  const under = h("div", { class: "under", "aria-hidden": "true" });
  const area = h("textarea", { spellcheck: "true", ...attributes, value });
  const mark = () => {
    under.replaceChildren(
      ...marks(area.value).map(([piece, kind]) => (kind ? h("mark", { class: kind }, piece) : piece)),
      " ", // gives an empty last line its height
    );
  };
  area.addEventListener("input", mark);
  mark();
  return { line: h("div", { class: "line" }, under, area), area };
}
