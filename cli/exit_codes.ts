/** Exit codes of every command. A training process says with 75 that its supervisor may start it again; nobody else sees that. */

/** Of a command that was interrupted before it was done; a training that was asked once to stop saves, and is done. */
export const interruptedExitCode = 130;

/** Each code, and what it means. */
export const exitCodes: readonly (readonly [number, string])[] = [
  [0, "done; of doctor, verify: nothing failed"],
  [1, "the machine's fault, or something failed: what was kept and how to go on is said"],
  [2, "a mistake in what was asked"],
  [interruptedExitCode, "stopped at once, by a second Ctrl-C"],
];
