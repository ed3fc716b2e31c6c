import assert from "node:assert/strict";
import { UserError } from "../../errors.ts";
import { drawSchedule } from "../../parallel/draw_schedule.ts";
import {
  assignSlots,
  bubbleFormula,
  makeSchedule,
  mostInFlight,
  type ScheduleName,
  scheduleNames,
  type ScheduleOptions,
  simulate,
} from "../../parallel/schedules.ts";

/** Every schedule over many sizes. */
function* cases(): Generator<[ScheduleName, ScheduleOptions]> {
  for (const name of scheduleNames) {
    for (let stages = 1; stages <= 6; stages++) {
      for (let microBatches = 1; microBatches <= 13; microBatches++) {
        for (const chunks of name === "interleaved" ? [2, 3] : [1]) {
          if (name === "interleaved" && microBatches % stages !== 0) continue;
          yield [name, { stages, microBatches, chunks }];
        }
      }
    }
  }
}

const costsOf = (name: ScheduleName) => ({ forward: 1, backward: name === "zero-bubble" ? 1 : 2, weights: 1 });

Deno.test("every schedule does everything once and in an order that ends", () => {
  for (const [name, options] of cases()) {
    const schedule = makeSchedule(name, options);
    for (const actions of schedule) {
      const kinds = name === "zero-bubble" ? ["forward", "backward", "weights"] : ["forward", "backward"];
      const told = new Set(actions.map(({ kind, microBatch, chunk }) => `${kind} ${microBatch} ${chunk}`));
      assert.equal(told.size, actions.length);
      assert.equal(actions.length, kinds.length * options.microBatches * options.chunks);
      const place = (kind: string, microBatch: number, chunk: number) =>
        actions.findIndex((a) => a.kind === kind && a.microBatch === microBatch && a.chunk === chunk);
      for (let microBatch = 0; microBatch < options.microBatches; microBatch++) {
        for (let chunk = 0; chunk < options.chunks; chunk++) {
          const places = kinds.map((kind) => place(kind, microBatch, chunk));
          assert.ok(places[0] >= 0);
          assert.deepEqual(places, [...places].sort((a, b) => a - b));
        }
      }
    }
    simulate(schedule, options, costsOf(name));
  }
});

Deno.test("no stage holds more micro-batches than its schedule allows, and slots are as few as that", () => {
  for (const [name, options] of cases()) {
    const { stages, microBatches, chunks } = options;
    makeSchedule(name, options).forEach((actions, stage) => {
      const bound = {
        gpipe: microBatches,
        "1f1b": Math.min(microBatches, stages - stage),
        interleaved: Math.min(microBatches * chunks, 2 * (stages - stage - 1) + (chunks - 1) * stages + 1),
        // Lagging weights hold what the stages before hold: nowhere more than 1F1B's first stage.
        "zero-bubble": Math.min(microBatches, stages),
      }[name];
      const all = name === "interleaved" && microBatches === stages ? microBatches * chunks : bound;
      assert.ok(mostInFlight(actions) <= all, `${name} ${JSON.stringify(options)} stage ${stage}`);
      const { slots, count } = assignSlots(actions);
      if (chunks === 1) assert.equal(count, mostInFlight(actions));
      const held = new Map<string, string>();
      actions.forEach(({ kind, microBatch, chunk }, i) => {
        const slot = `${chunk} ${slots[i]}`;
        if (kind === "forward") {
          assert.ok(!held.has(slot), "a slot that is taken");
          held.set(slot, `${microBatch}`);
        } else assert.equal(held.get(slot), `${microBatch}`);
        if (kind === (name === "zero-bubble" ? "weights" : "backward")) held.delete(slot);
      });
    });
  }
});

Deno.test("the idle share is the published one", () => {
  for (const [name, options] of cases()) {
    const { stages, microBatches } = options;
    if (microBatches < stages || (name === "interleaved" && microBatches === stages)) continue;
    const { bubble } = simulate(makeSchedule(name, options), options, costsOf(name));
    assert.ok(Math.abs(bubble - bubbleFormula(name, options)) < 1e-12, `${name} ${JSON.stringify(options)} ${bubble}`);
  }
});

Deno.test("the interleaved schedule refuses micro-batches that do not fill its stages", () => {
  assert.throws(
    () => makeSchedule("interleaved", { stages: 4, microBatches: 6, chunks: 2 }),
    (error: Error) =>
      error instanceof UserError && /--micro-batches as a multiple of its 4 stages, not 6/.test(error.message),
  );
});

Deno.test("drawSchedule() draws small schedules exactly and cuts what is too wide", () => {
  assert.equal(
    drawSchedule("1f1b", { stages: 2, microBatches: 3, chunks: 1 }),
    [
      "stage 0 1 2 · · 1'─ 3 2'─ · 3'─",
      "stage 1 · 1 1'─ 2 2'─ 3 3'─ · ·",
      "1f1b, 3 micro-batches: idle 25.0%",
      "1 forward, 1' backward, · idle",
    ].join("\n"),
  );
  const wide = drawSchedule("gpipe", { stages: 8, microBatches: 64, chunks: 1 }, 80);
  assert.ok(wide.split("\n").slice(0, 8).every((line) => line.length <= 80));
  assert.match(wide, /the first \d+ of 213 units/);
});
