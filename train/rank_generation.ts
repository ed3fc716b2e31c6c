/**
 * A rank that generates: its part of the model, turn by turn.
 * @module
 */

import { openModelFolder } from "../data/safetensors.ts";
import type { Device } from "../gpu/device.ts";
import { openDevice } from "../gpu/open.ts";
import { elementCount } from "../graph/tensor.ts";
import { SharedMemoryExecutor } from "../parallel/executor.ts";
import { Mailbox } from "../parallel/mailbox.ts";
import { RunStatus } from "../parallel/status.ts";
import { computeLogits, takeToken } from "./decode.ts";
import { type GenerationJob, generationLayout, usualStallTimeout } from "./generation_job.ts";
import { ModelProgram } from "./model_program.ts";
import { patienceOf, type RankMessage } from "./rank_protocol.ts";
import { drawFor, sampleToken } from "./sampling.ts";
import { turnsOf } from "./turns.ts";

/** Un-awaited mappings are let go this often, in ms. */
const settleMilliseconds = 2000;

/** Generates as the job says, telling by `post`; the last message comes when the device has been let go. */
export async function generateOnRank(job: GenerationJob, post: (message: RankMessage) => void): Promise<void> {
  const step = await generateOnDevice(job, post);
  post({ type: "done", step, stopped: false });
}

async function generateOnDevice(job: GenerationJob, post: (message: RankMessage) => void): Promise<number> {
  const { rank, request } = job;
  const { configuration, stallTimeout = usualStallTimeout, sampling, seed } = request;
  const status = new RunStatus(job.executor.status);
  let device: Device | undefined;
  let model: ModelProgram | undefined;
  try {
    status.doing(rank, "opening its device");
    device = await openDevice({ selection: job.selection });
    post({ type: "opened" });
    const limit = () => status.patience(rank);
    const executor = new SharedMemoryExecutor(job.executor, limit);
    const mailboxes = job.mailboxes.map((mailbox) => new Mailbox(mailbox, rank, status, limit));
    const layout = generationLayout(job.request.configuration, job);
    const options = { configuration, batch: 1, sequenceLength: 1, segments: ["decode"] as const, layout };
    model = await ModelProgram.create(device, options, executor);
    status.doing(rank, "loading its weights");
    const weights = openModelFolder(request.folder);
    model.load(weights);
    weights.close();
    const [{ head, tensor }] = layout.parts;
    const chooses = head && tensor.index === 0;
    const logits = chooses ? new Float32Array(elementCount(model.model.decode!.logits[0])) : undefined;
    const chosen = (slot: number, text: number) => {
      status.doing(rank, `the choice of a token of text ${text + 1}`);
      return mailboxes[slot].take();
    };
    executor.sumNumbers("the meeting behind loading", [0]);
    status.allow(rank, patienceOf({ stallTimeout }).usual);
    let turns = 0;
    let settled = performance.now();
    for (const turn of turnsOf(request.prompts, job, chosen)) {
      executor.alive();
      const { slot, text } = turn;
      if (turn.begins && rank === 0) post({ type: "begun", text });
      await takeToken(model, turn);
      if (turn.chooses && head) await computeLogits(model, logits, slot);
      if (turn.chooses && logits) {
        const token = sampleToken(logits.subarray(0, request.choices), sampling, drawFor(seed, text, turn.made));
        mailboxes[slot].put(token);
        post({ type: "token", text, token });
      }
      turns++;
      if (performance.now() - settled > settleMilliseconds) {
        await device.settle();
        settled = performance.now();
      }
    }
    return turns;
  } finally {
    model?.destroy();
    await device?.destroy();
  }
}
