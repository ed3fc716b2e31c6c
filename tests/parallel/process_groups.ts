/** What tests of process groups share: members in this process, and numbers that they bring. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { ProcessGroup, type ProcessGroupOptions } from "../../parallel/process_group.ts";
import { localMesh } from "./loopback_mesh.ts";

/** What member `rank` brings: values whose sum depends on the order of its terms. */
export function broughtBy(rank: number, length: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length }, (_, i) => Math.sin(i * 12.9898 + rank * 78.233) * 10 ** ((i + rank) % 7));
}

/** A hash of the bits. */
export function hashOf({ buffer, byteOffset, byteLength }: Float32Array): string {
  return createHash("sha256").update(new Uint8Array(buffer, byteOffset, byteLength)).digest("hex");
}

/** What a member does. */
export type Play = (group: ProcessGroup, rank: number) => Promise<void>;

/** Has `size` members play at a time, and closes their links. Throws what the first that failed has thrown. */
export async function together(size: number, play: Play, options: Partial<ProcessGroupOptions> = {}): Promise<void> {
  const meshes = await localMesh(size);
  const groups = meshes.map((links, rank) => new ProcessGroup({ rank, size, links, timeoutSeconds: 20, ...options }));
  try {
    await Promise.all(groups.map(play));
  } finally {
    groups.forEach((group) => group.close());
  }
}

/** What each member's promise is rejected with. */
export function failures(promises: readonly Promise<unknown>[]): Promise<Error[]> {
  return Promise.all(promises.map(async (promise) => {
    const failure = await promise.then(() => undefined, (error) => error);
    assert.ok(failure instanceof Error, "A member went on without the others");
    return failure;
  }));
}
