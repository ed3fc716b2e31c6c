/**
 * The process that the user started watches the one that trains: a driver that resets the GPU ends the whole process,
 * Workers and all, and somebody must be left to say so and to go on.
 * @module
 */

import { latestCheckpoint } from "./checkpoint.ts";

/** Set in the environment of the process that trains. */
export const supervisedMark = "MUSTER_SUPERVISED";

/** How the training process says that a new attempt may succeed. */
export const restartableExitCode = 75;

/** True in the process that trains. */
export function isSupervised(): boolean {
  return Deno.env.get(supervisedMark) === "1";
}

/** What to watch. */
export interface SupervisorOptions {
  /** Arguments of the command line of the first attempt. */
  readonly args: readonly string[];
  /** Folder of the run, from which later attempts resume. */
  readonly run: string;
  readonly restarts: number;
  /** Told, in words, of a crash and of each restart. */
  readonly onMessage: (message: string) => void;
}

/** The command that runs this program again, with nothing to read and, if not told otherwise, this process's error output. */
export function ownCommand(
  args: readonly string[],
  options: Pick<Deno.CommandOptions, "env" | "stdout" | "stderr">,
): Deno.Command {
  const program = Deno.build.standalone ? [] : ["run", "-A", "--quiet", Deno.mainModule];
  return new Deno.Command(Deno.execPath(), {
    args: [...program, ...args],
    stdin: "null",
    stderr: "inherit",
    ...options,
  });
}

/**
 * Ways to stop. A terminal's interrupt, and the signals of Slurm, mpirun and systemd, reach the child as well, which waits
 * for the request that follows.
 */
export const stopSignals: readonly Deno.Signal[] = Deno.build.os === "windows" ? ["SIGINT"] : ["SIGINT", "SIGTERM"];

/** The request to stop that the child gets from its supervisor, and from nobody else. */
export const stopRequest: Deno.Signal = Deno.build.os === "windows" ? "SIGINT" : "SIGUSR2";

/** Signals by which drivers and kernels end a process, in plain words. */
const causes: Readonly<Record<string, string>> = {
  SIGABRT: "aborted, as it does when the GPU is reset or its driver fails",
  SIGSEGV: "crashed inside the graphics driver or the runtime (SIGSEGV)",
  SIGBUS: "crashed inside the graphics driver or the runtime (SIGBUS)",
  SIGILL: "crashed inside the graphics driver or the runtime (SIGILL)",
  SIGKILL: "was killed (SIGKILL), as the system does when memory runs out",
};

function describeEnd(status: Deno.CommandStatus): string {
  if (status.signal) return causes[status.signal] ?? `was ended by ${status.signal}`;
  return status.code === restartableExitCode ? "gave up" : `ended with exit code ${status.code}`;
}

/** Runs the training process, again after crashes if asked, and returns the exit code. */
export async function supervise(options: SupervisorOptions): Promise<number> {
  const { run, restarts, onMessage } = options;
  let args = options.args;
  let requests = 0;
  for (let attempt = 0;; attempt++) {
    const child = ownCommand(args, { env: { [supervisedMark]: "1" }, stdout: "inherit" }).spawn();
    const forward = () => {
      requests++;
      try {
        child.kill(stopRequest);
      } catch {
        // It has ended already.
      }
    };
    for (const signal of stopSignals) Deno.addSignalListener(signal, forward);
    const status = await child.status;
    for (const signal of stopSignals) Deno.removeSignalListener(signal, forward);
    if (!status.signal && status.code !== restartableExitCode && status.code <= 2) return status.code;
    // The second request ends it at once, also while a driver's threads compute, which may crash it on the way out.
    if (requests > 0 && status.code === 130 || requests > 1 && status.signal) return 130;
    const last = latestCheckpoint(run);
    const kept = last ? `the last checkpoint is ${last}` : "no checkpoint was saved yet";
    if (attempt >= restarts || requests > 0) {
      // It has said itself what was wrong and how to go on.
      if (status.code === restartableExitCode) return 1;
      const how = last
        ? `go on with \`muster train --resume ${run}\`, or let it go on by itself with --restarts`
        : "start again";
      onMessage(`The training process ${describeEnd(status)}; ${kept}: ${how}`);
      return 1;
    }
    onMessage(`The training process ${describeEnd(status)}; ${kept}; starting again (${attempt + 1} of ${restarts})`);
    if (last) {
      const without = options.args.filter((arg, i, all) =>
        !/^--(resume|init|trace)(=|$)/.test(arg) && !/^--(resume|init|trace)$/.test(all[i - 1] ?? "")
      );
      args = [...without, "--resume", run];
    }
  }
}
