// The page's address: it follows the state, and the state follows it when somebody goes back, forward or to a link.

const SAVE_MS = 60;

/**
 * @typedef {object} Follower
 * @property {() => string} text what the address says after the #
 * @property {(text: string) => void} restore called with what the address says when it was changed from outside
 * @property {() => void} onStep called when the number of steps back may have changed
 */

export class AddressBar {
  /**
   * @param {Follower} follower
   * @param {AbortSignal} signal
   */
  constructor(follower, signal) {
    this.follower = follower;
    this.saving = 0;
    this.last = "";
    this.following = false; // what comes is no new step
    window.addEventListener("hashchange", () => this.follow(), { signal });
    signal.addEventListener("abort", () => clearTimeout(this.saving));
  }

  /** How many steps back the page can go. */
  get steps() { return Number(history.state?.steps ?? 0); }

  /** Write the address soon; all changes until then are one step. */
  save() {
    clearTimeout(this.saving);
    this.saving = window.setTimeout(() => {
      const hash = `#${this.follower.text()}`;
      const isStep = this.last && !this.following;
      this.following = false;
      if (hash === this.last) return;
      this.last = hash;
      if (isStep) history.pushState({ steps: this.steps + 1 }, "", hash);
      else history.replaceState({ steps: this.steps }, "", hash);
      this.follower.onStep();
    }, SAVE_MS);
  }

  undo() {
    if (this.steps) history.back();
  }

  follow() {
    if (location.hash === this.last) return;
    this.last = location.hash;
    this.following = true;
    this.follower.onStep();
    this.follower.restore(location.hash.slice(1));
  }
}
