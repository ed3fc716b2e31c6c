/**
 * Which Muster this is.
 * @module
 */

/** Version of Muster, as checkpoints record it and `muster --version` prints it. */
export const version = "0.1.0";

/**
 * The commit that was built. In the source it is this one word; whoever builds one file puts the commit's 40 hexadecimal
 * digits wherever the word is in that file.
 */
export const commitPlace = "MUSTER_COMMIT_OF_THIS_BUILD";

/**
 * The commit of a checkout, as its `.git` tells; undefined where there is none. Git itself need not be installed.
 *
 * @param top folder of the checkout, or of a work tree of it
 */
export function checkoutCommit(top: string): string | undefined {
  const read = (path: string) => Deno.readTextFileSync(path).trim();
  try {
    const git = `${top}/.git`;
    // The `.git` of a work tree is a file that names its folder, which names the repository's.
    const folder = Deno.statSync(git).isFile ? absolute(top, read(git).replace(/^gitdir: /, "")) : git;
    const head = read(`${folder}/HEAD`);
    const reference = /^ref: (.+)$/.exec(head)?.[1];
    const commit = reference === undefined ? head : resolveReference(folder, reference, read);
    return commit && /^[0-9a-f]{40,64}$/.test(commit) ? commit : undefined;
  } catch {
    return undefined; // No checkout, or one that cannot be read.
  }
}

/** A path that may be relative to a folder. */
function absolute(folder: string, path: string): string {
  return /^(\/|[A-Za-z]:)/.test(path) ? path : `${folder}/${path}`;
}

/** The commit that a branch is at: in a file of its own, or packed with others. */
function resolveReference(folder: string, reference: string, read: (path: string) => string): string | undefined {
  const tried = (path: string) => {
    try {
      return read(path);
    } catch {
      return undefined;
    }
  };
  const common = absolute(folder, tried(`${folder}/commondir`) ?? ".");
  return tried(`${folder}/${reference}`) ?? tried(`${common}/${reference}`) ??
    tried(`${common}/packed-refs`)?.split("\n").find((line) => line.endsWith(` ${reference}`))?.split(" ")[0];
}
