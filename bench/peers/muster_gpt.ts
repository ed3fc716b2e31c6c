/** A training of Muster for bench/peers.ts: muster_gpt.ts small|medium STEPS; prints what the peers' programs print. */

import { openDevice } from "../../gpu/open.ts";
import { ModelProgram } from "../../train/model_program.ts";
import { batches, initialWeights, optimizer, workloads } from "../workloads.ts";

/** The first compiles, the second is timed dispatch by dispatch, the third is the first that is replayed. */
const warmUpSteps = 3;

const name = Deno.args[0] as keyof typeof workloads;
const workload = workloads[name];
const { configuration, batch, sequenceLength } = workload;
const device = await openDevice();
const model = await ModelProgram.create(device, { configuration, batch, sequenceLength, segments: ["train"] });
for (const { parameter, tensor } of model.parameters) {
  model.program.write(tensor, initialWeights(workload, parameter.name));
}
const next = batches(workload);
const count = batch * sequenceLength;
const times: number[] = [];
const losses: string[] = [];
for (let step = 1; step <= Number(Deno.args[1]); step++) {
  const { tokens, targets } = next();
  const start = performance.now();
  model.beginStep(count);
  await model.train(tokens, targets);
  await model.update({ ...optimizer, step });
  losses.push((await model.lossSum() / count).toFixed(4));
  times.push(performance.now() - start);
}
model.destroy();
await device.destroy();
const steady = times.slice(Math.min(warmUpSteps, times.length - 1)).sort((a, b) => a - b);
console.log(JSON.stringify({
  adapter: device.capabilities.name,
  ms_per_step: steady[steady.length >> 1],
  first_ms: times[0],
  n: steady.length,
}));
console.log("loss", losses.join(" "));
