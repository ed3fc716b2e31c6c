import assert from "node:assert/strict";
import { MachineError, UserError } from "../../errors.ts";
import type { MetWorld } from "../../train/network_protocol.ts";
import { newestState, worldOf } from "../../train/run_terms.ts";

function met(facts: Record<string, string>[], survivors: number[] = []): MetWorld {
  const complete = { copies: "1", ranks: "1", devices: "a", unequal: "false", weights: "w", state: "0 begun" };
  return {
    id: "world",
    number: 1,
    rank: 0,
    size: facts.length,
    machines: facts.map((_, i) => `node ${i}`),
    survivors,
    facts: facts.map((own) => ({ ...complete, ...own })),
  } as MetWorld;
}

Deno.test("newestState() takes the most steps, of a run under way those of its members, and sees who lacks them", () => {
  const states = [{ state: "10 a" }, { state: "20 b" }, { state: "10 a" }];
  assert.deepEqual(newestState(met(states)), { root: 1, step: 20, name: "20 b", lacking: true });
  assert.deepEqual(newestState(met(states, [0, 2])), { root: 0, step: 10, name: "10 a", lacking: true });
  assert.equal(newestState(met([{ state: "10 a" }, { state: "10 a" }])).lacking, false);
  assert.throws(() => newestState(met([{}, { weights: "other" }])), UserError);
});

Deno.test("what a machine tells of itself is not believed blindly", () => {
  assert.deepEqual(worldOf(met([{ copies: "3" }, { ranks: "4" }])).copies, [3, 1]);
  for (const fact of ["", "x", "-1", "0", "1e9", "99999", "2.5", "1x"]) {
    assert.throws(() => worldOf(met([{}, { copies: fact }])), MachineError, fact);
  }
  for (const state of ["", "begun", "-1 a", "1e3 a", "99999999999999999999 a"]) {
    assert.throws(() => newestState(met([{}, { state }])), MachineError, state);
  }
});
