import assert from "node:assert/strict";
import { checkoutCommit } from "../../train/version.ts";
import { withFolder } from "../folder.ts";

const [a, b, c] = ["a", "b", "c"].map((digit) => digit.repeat(40));

Deno.test("checkoutCommit() reads a branch, a packed branch, a commit without branch, and a work tree; else undefined", () =>
  withFolder({}, (folder) => {
    const write = (path: string, text: string) => {
      Deno.mkdirSync(`${folder}/${path}`.replace(/\/[^/]*$/, ""), { recursive: true });
      Deno.writeTextFileSync(`${folder}/${path}`, text);
    };
    assert.equal(checkoutCommit(folder), undefined);
    write(".git/HEAD", "ref: refs/heads/main\n");
    assert.equal(checkoutCommit(folder), undefined);
    write(".git/packed-refs", `# pack-refs with: peeled\n${c} refs/heads/mainly\n${a} refs/heads/main\n`);
    assert.equal(checkoutCommit(folder), a);
    write(".git/refs/heads/main", `${b}\n`);
    assert.equal(checkoutCommit(folder), b);
    write(".git/HEAD", `${c}\n`);
    assert.equal(checkoutCommit(folder), c);

    write(".git/worktrees/side/HEAD", "ref: refs/heads/main\n");
    write(".git/worktrees/side/commondir", "../..\n");
    write("side/.git", `gitdir: ${folder}/.git/worktrees/side\n`);
    assert.equal(checkoutCommit(`${folder}/side`), b);
    write(".git/HEAD", "nonsense\n");
    assert.equal(checkoutCommit(folder), undefined);
    return Promise.resolve();
  }));
