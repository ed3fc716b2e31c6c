import assert from "node:assert/strict";
import { Trace } from "../../gpu/trace.ts";

Deno.test("Trace: spans lie beside or within each other, next() ends those at its depth, take() all", () => {
  const trace = new Trace();
  const began = Date.now();
  trace.next(0, "step 1", "step");
  trace.next(1, "forward", "phase");
  trace.begin("send", "collective");
  trace.next(1, "backward", "phase");
  trace.begin("receive", "collective");
  trace.end();
  trace.next(0, "step 2", "step");
  const { names, categories, begins, ends } = trace.take();
  const ended = Date.now() + 1;
  assert.deepEqual(names, ["step 1", "forward", "send", "backward", "receive", "step 2"]);
  assert.deepEqual(categories, ["step", "phase", "collective", "phase", "collective", "step"]);
  const times = [began, begins[0], begins[1], begins[2], ends[2], ends[1], begins[3], begins[4], ends[4], ends[3]];
  times.push(ends[0], begins[5], ends[5], ended);
  assert.deepEqual(times, [...times].sort((a, b) => a - b));
  assert.deepEqual(trace.take().names, []);
  // What comes next begins outside.
  trace.begin("step 3", "step");
  assert.deepEqual(trace.take().names, ["step 3"]);
});
