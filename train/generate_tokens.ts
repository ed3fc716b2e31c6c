/**
 * Generation in tokens: the coordinator of the ranks that generate.
 * @module
 */

import { StoppedError } from "../parallel/status.ts";
import { startRanks } from "./crew.ts";
import { generationJobs, type TokenRequest, usualStallTimeout } from "./generation_job.ts";
import { isLast } from "./turns.ts";

/** Hooks of a generation. */
export interface TokenHooks {
  /** Told when the first token of a text's prompt is taken. */
  readonly onBegin?: (text: number) => void;
  /** Told of each new token, and if it is its text's last. */
  readonly onToken: (text: number, token: number, last: boolean) => void;
  /** Told in words of ranks that wait. */
  readonly onMessage?: (message: string) => void;
  /** Ends all early. */
  readonly signal?: AbortSignal | undefined;
}

/** Generates tokens on the ranks that the request asks for. Rejects with the first failure of a rank. */
export async function generateTokens(request: TokenRequest, hooks: TokenHooks): Promise<void> {
  const { onBegin, onToken, onMessage, signal } = hooks;
  const jobs = generationJobs(request);
  const made = request.prompts.map(() => 0);
  let finished = 0;
  const crew = startRanks(jobs.map((job) => ({ kind: "generate", job })), {
    stallTimeout: request.stallTimeout ?? usualStallTimeout,
    onMessage(_, message) {
      if (message.type === "begun") onBegin?.(message.text);
      if (message.type !== "token") return;
      const { text, token } = message;
      const last = isLast(token, ++made[text], jobs[0]);
      if (last) finished++;
      onToken(text, token, last);
    },
    onStall: (message) => onMessage?.(message),
  });
  const stop = () => {
    // Ranks that have finished end by themselves.
    if (finished < made.length) crew.fail(new StoppedError("Asked to stop"));
  };
  signal?.addEventListener("abort", stop);
  if (signal?.aborted) stop();
  try {
    await crew.ended;
  } catch (error) {
    if (!(error instanceof StoppedError)) throw error;
  } finally {
    signal?.removeEventListener("abort", stop);
  }
}
