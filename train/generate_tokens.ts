/**
 * Generation in tokens: the coordinator of the ranks that generate.
 * @module
 */

import { StoppedError } from "../parallel/status.ts";
import { startRanks } from "./crew.ts";
import { generationJobs, type TokenRequest, usualStallTimeout } from "./generation_job.ts";
import { isLast } from "./turns.ts";

/** Kernels that are compiled. */
export interface CompileProgress {
  /** Compiled so far. */
  readonly done: number;
  /** Of so many. */
  readonly total: number;
  /** Time since the first was begun. */
  readonly seconds: number;
}

/** Hooks of a generation. */
export interface TokenHooks {
  /** Told when the first tokens of a text's prompt go in: at which time, in ms. */
  readonly onBegin?: (text: number, at: number) => void;
  /** Told of each new token, if it is its text's last, and when it was chosen, in ms. */
  readonly onToken: (text: number, token: number, last: boolean, at: number) => void;
  /** Told of kernels that are compiled before the first token. */
  readonly onCompile?: (progress: CompileProgress) => void;
  /** Told in words of ranks that wait. */
  readonly onMessage?: (message: string) => void;
  /** Ends all early. */
  readonly signal?: AbortSignal | undefined;
}

/** Generates tokens on the ranks that the request asks for. Rejects with the first failure of a rank. */
export async function generateTokens(request: TokenRequest, hooks: TokenHooks): Promise<void> {
  const { onBegin, onToken, onCompile, onMessage, signal } = hooks;
  const jobs = generationJobs(request);
  const made = request.prompts.map(() => 0);
  let finished = 0;
  const crew = startRanks(jobs.map((job) => ({ kind: "generate", job })), {
    stallTimeout: request.stallTimeout ?? usualStallTimeout,
    onMessage(rank, message) {
      if (message.type === "compile" && rank === 0) {
        const { done, total, seconds } = message;
        onCompile?.({ done, total, seconds });
      }
      if (message.type === "begun") onBegin?.(message.text, message.at);
      if (message.type !== "token") return;
      const { text, token, at } = message;
      const last = isLast(token, ++made[text], jobs[0]);
      if (last) finished++;
      onToken(text, token, last, at);
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
