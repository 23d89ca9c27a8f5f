// Asking again and again, while somebody is looking.

export class Poll {
  #timer = 0;
  #wanted = false;

  /** `look()`, which handles its own failures, is called every `ms` from `start` to `stop`, but not for a hidden page. */
  constructor(look, ms) {
    this.look = look;
    this.ms = ms;
    document.addEventListener("visibilitychange", () => this.#wanted && this.#turn());
  }

  /** Look now, too; resolves when that is done. */
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
    if (document.hidden) return; // it goes on when the page is seen
    await this.look();
    clearTimeout(this.#timer); // another turn may have begun meanwhile
    if (this.#wanted) this.#timer = setTimeout(() => this.#turn(), this.ms);
  }
}
