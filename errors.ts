/**
 * The two kinds of failure that Muster reports, thrown where input or machine enters.
 * A `UserError` ends a command with exit code 2, a `MachineError` with exit code 1; both carry one
 * plain sentence (what, where, what to do) and are printed without a stack unless `--verbose`.
 * @module
 */

/** A mistake in what the user asked for or supplied: a flag, a file, a configuration. Exit code 2. */
export class UserError extends Error {
  /** Tells it apart where classes do not survive, as between threads. */
  override name = "UserError";
  /** Exit code of the process. */
  readonly exitCode = 2;
}

/** A fault of the machine: no adapter, device lost, disk full. Exit code 1. */
export class MachineError extends Error {
  /** Tells it apart where classes do not survive, as between threads. */
  override name = "MachineError";
  /** Exit code of the process. */
  readonly exitCode = 1;
  /** True if the same work may succeed in a new process: a device that was lost or stopped answering. */
  readonly restartable: boolean;

  /**
   * Makes the error.
   *
   * @param message the sentence to print
   * @param options whether a new attempt may succeed
   */
  constructor(message: string, options: { restartable?: boolean } = {}) {
    super(message);
    this.restartable = options.restartable ?? false;
  }
}

/** The message of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Every code of an error's `cause` chain is looked through; true if one is `code` (`ENOSPC`, `EACCES`, …). */
export function hasCode(error: unknown, code: string): boolean {
  for (let e = error; e instanceof Error; e = e.cause) {
    if ((e as { code?: unknown }).code === code) return true;
  }
  return false;
}
