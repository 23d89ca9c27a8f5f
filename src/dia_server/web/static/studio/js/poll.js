// Calls a function periodically while the page is visible.

export class Poll {
  #timer = 0;
  #wanted = false;

  /** `look()`, which handles its own failures, is called every `ms` between `start` and `stop`, except while the page is hidden. */
  constructor(look, ms) {
    this.look = look;
    this.ms = ms;
    document.addEventListener("visibilitychange", () => this.#wanted && this.#turn());
  }

  /** Start with an immediate call; resolves when it is done. */
  start() {
    this.#wanted = true;
    return this.#turn();
  }

  stop() {
    this.#wanted = false;
    clearTimeout(this.#timer);
  }

  async #turn() {
    clearTimeout(this.#timer);
    if (document.hidden) return; // polling resumes when the page becomes visible
    await this.look();
    clearTimeout(this.#timer); // another call may have set a timer in the meantime
    if (this.#wanted) this.#timer = setTimeout(() => this.#turn(), this.ms);
  }
}
