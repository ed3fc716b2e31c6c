/** A rank that is alone on its machine and has sums made over all machines. */

import type { GroupSetup } from "../../parallel/group_setup.ts";
import { Group } from "../../parallel/shared_memory.ts";
import { RunStatus } from "../../parallel/status.ts";

/** What it is to do. */
export interface SumTask {
  readonly setup: GroupSetup;
  readonly status: SharedArrayBuffer;
  /** Numbers to sum, call after call. */
  readonly calls: readonly (readonly number[])[];
  /** For how long it waits, in ms. */
  readonly limit: number;
}

/** What came of it. */
export type SumAnswer = { readonly sums: readonly number[][] } | { readonly failure: string };

interface Scope {
  onmessage: (event: MessageEvent<SumTask>) => void;
  postMessage(answer: SumAnswer): void;
  close(): void;
}

const scope = globalThis as unknown as Scope;
scope.onmessage = ({ data: { setup, status, calls, limit } }) => {
  const group = new Group(setup, 0, new RunStatus(status), () => limit);
  try {
    scope.postMessage({ sums: calls.map((values) => group.sumNumbers(values)) });
  } catch (error) {
    scope.postMessage({ failure: String(error) });
  }
  scope.close();
};
