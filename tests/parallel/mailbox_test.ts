import assert from "node:assert/strict";
import { createMailbox, Mailbox } from "../../parallel/mailbox.ts";
import { createStatusMemory, RunStatus, StoppedError } from "../../parallel/status.ts";

function ends(limit: number): { status: RunStatus; ends: Mailbox[] } {
  const setup = createMailbox(0);
  const status = new RunStatus(createStatusMemory(2));
  return { status, ends: [0, 1].map((rank) => new Mailbox(setup, rank, status, () => limit)) };
}

Deno.test("Mailbox gives every rank each number once, in order", () => {
  const { ends: [sender, other] } = ends(1000);
  for (const value of [7, 0, 50_256]) {
    sender.put(value);
    assert.deepEqual([sender.take(), other.take()], [value, value]);
  }
});

Deno.test("Mailbox waits within its limit, and not at all once another rank has failed", () => {
  const { status, ends: [sender, other] } = ends(100);
  sender.put(1);
  other.take();
  status.doing(1, "the choice of a token");
  assert.throws(() => other.take(), /Rank 1 has waited 0\.\d s in the choice of a token for rank 0/);
  status.fail();
  assert.throws(() => other.take(), StoppedError);
});
