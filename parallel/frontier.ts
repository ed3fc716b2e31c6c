/** How far something has come, for those who send on what is there. */
export class Frontier {
  #waiting: (() => void)[] = [];

  constructor(public value: number) {}

  /** Moves it and wakes those who wait. */
  advance(to: number): void {
    this.value = to;
    if (this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const wake of waiting) wake();
  }

  /** Resolves when it moves next. */
  moved(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}
