/** `muster --version`. */

import { checkoutCommit, commitPlace, version } from "../train/version.ts";

/** Everything that tells one Muster from another. */
export interface VersionFacts {
  readonly muster: string;
  /** Hexadecimal; null where neither a build nor a checkout tells it. */
  readonly commit: string | null;
  readonly deno: string;
  readonly v8: string;
  readonly typescript: string;
  readonly os: string;
  readonly arch: string;
}

/** The commit of this build, else of the checkout that this runs from. */
function commit(): string | null {
  if (/^[0-9a-f]+$/.test(commitPlace)) return commitPlace;
  const top = new URL("..", import.meta.url);
  return (top.protocol === "file:" ? checkoutCommit(top.pathname.replace(/\/$/, "")) : undefined) ?? null;
}

/** What this is, and what runs it. */
export function versionFacts(): VersionFacts {
  const { deno, v8, typescript } = Deno.version;
  return { muster: version, commit: commit(), deno, v8, typescript, os: Deno.build.os, arch: Deno.build.arch };
}

/** The same to print. */
export function versionText(json: boolean): string {
  const facts = versionFacts();
  if (json) return JSON.stringify(facts);
  const { muster, commit, deno, v8, typescript, os, arch } = facts;
  return `muster ${muster} (${commit ? `commit ${commit.slice(0, 12)}` : "commit unknown"})\n` +
    `deno ${deno}, v8 ${v8}, typescript ${typescript}\n${os} ${arch}`;
}
