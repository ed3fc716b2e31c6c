/**
 * What an examination of the machine found, one line each.
 * @module
 */

/** One thing that was looked at. */
export interface Finding {
  /** What was looked at. */
  readonly name: string;
  readonly state: "ok" | "warning" | "failed";
  /** What is there. */
  readonly found: string;
  /** What to do about it; undefined if nothing is wrong. */
  readonly remedy: string | undefined;
}

/** Nothing is wrong. */
export function fine(name: string, found: string): Finding {
  return { name, state: "ok", found, remedy: undefined };
}

/** Muster works, but not as well as it could, or not everywhere. */
export function warning(name: string, found: string, remedy: string): Finding {
  return { name, state: "warning", found, remedy };
}

/** Muster, or what was asked for, will not work. */
export function failed(name: string, found: string, remedy: string): Finding {
  return { name, state: "failed", found, remedy };
}
