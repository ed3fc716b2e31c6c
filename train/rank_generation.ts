/**
 * A rank that generates: its part of the model, turn by turn.
 * @module
 */

import { clockOrigin } from "../gpu/trace.ts";
import { elementCount } from "../graph/tensor.ts";
import { Mailbox } from "../parallel/mailbox.ts";
import { computeLogits, takeTokens } from "./decode.ts";
import { type GenerationJob, generationLayout, usualStallTimeout } from "./generation_job.ts";
import { withModel } from "./rank_model.ts";
import { patienceOf, type RankMessage } from "./rank_protocol.ts";
import { loadWeights } from "./rank_state.ts";
import { drawFor, sampleToken } from "./sampling.ts";
import { turnsOf } from "./turns.ts";

/** Generates as the job says, telling by `post`; the last message comes when the device has been let go. */
export async function generateOnRank(job: GenerationJob, post: (message: RankMessage) => void): Promise<void> {
  const { rank, request } = job;
  const { configuration, folder, prompts, choices, sampling, seed, precision, stallTimeout = usualStallTimeout } =
    request;
  const layout = generationLayout(configuration, job, precision);
  const [{ head, tensor }] = layout.parts;
  const step = await withModel(job, post, {
    options: () => ({
      configuration,
      batch: 1,
      sequenceLength: 1,
      segments: ["decode"],
      blockRows: job.blockRows,
      layout,
    }),
    load: (model) => loadWeights(model, folder),
    async run(model, executor) {
      const { status } = executor;
      const limit = () => status.patience(rank);
      const mailboxes = job.mailboxes.map((mailbox) => new Mailbox(mailbox, rank, status, limit));
      const chooses = head && tensor.index === 0;
      const [tensorOfLogits] = model.model.decode!.logits.values();
      const logits = chooses ? new Float32Array(elementCount(tensorOfLogits)) : undefined;
      // Texts begin on one rank and get their tokens on another: the ranks' clocks must agree.
      const origin = layout.world > 1 ? clockOrigin() : performance.timeOrigin;
      const now = () => origin + performance.now();
      const chosen = (slot: number, text: number) => {
        status.doing(rank, `the choice of a token of text ${text + 1}`);
        return mailboxes[slot].take();
      };
      status.allow(rank, patienceOf({ stallTimeout }).usual);
      let turns = 0;
      for (const turn of turnsOf(prompts, job, chosen)) {
        executor.alive();
        const { slot, text } = turn;
        if (turn.begins && rank === 0) post({ type: "begun", text, at: now() });
        await takeTokens(model, turn);
        if (turn.chooses && head) await computeLogits(model, turn, logits);
        if (turn.chooses && logits) {
          const token = sampleToken(logits.subarray(0, choices), sampling, drawFor(seed, text, turn.made));
          mailboxes[slot].put(token);
          post({ type: "token", text, token, at: now() });
        }
        turns++;
        await model.program.device.settleNowAndThen();
      }
      return turns;
    },
  });
  post({ type: "done", step, stopped: false, regroups: false });
}
