/** A process whose output is collected and can be waited for. */

/** What came of a process. */
export interface Ended {
  readonly code: number;
  readonly signal: Deno.Signal | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A process that runs. */
export interface Running {
  readonly pid: number;
  readonly ended: Promise<Ended>;
  /** What it has written to both so far. */
  readonly text: { readonly stdout: string; readonly stderr: string };
  /** Sends it a signal, if it still runs. */
  signal(signal: Deno.Signal): void;
  /** Resolves when its output matches; rejects, with the output, when it has ended without or that takes too long. */
  until(pattern: RegExp, seconds: number): Promise<RegExpExecArray>;
  /** What came of it; rejects, with the output, if that takes too long. */
  within(seconds: number): Promise<Ended>;
}

/** Starts a process. */
export function startRunning(
  command: string,
  args: readonly string[],
  options: Omit<Deno.CommandOptions, "args" | "stdin" | "stdout" | "stderr">,
): Running {
  const piped = { stdin: "null", stdout: "piped", stderr: "piped" } as const;
  const child = new Deno.Command(command, { ...options, ...piped, args: [...args] }).spawn();
  const text = { stdout: "", stderr: "" };
  const listeners = new Set<() => void>();
  const collect = async (from: "stdout" | "stderr") => {
    for await (const piece of child[from].pipeThrough(new TextDecoderStream())) {
      text[from] += piece;
      for (const listener of listeners) listener();
    }
  };
  const collected = Promise.all([collect("stdout"), collect("stderr"), child.status]);
  const ended = collected.then(([, , { code, signal }]): Ended => ({ code, signal, ...text }));
  const limited = async <T>(promise: Promise<T>, seconds: number, what: string): Promise<T> => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      const say = () => reject(new Error(`${args.slice(-8).join(" ")}: no ${what} in ${seconds} s\n${all()}`));
      timer = setTimeout(say, seconds * 1000);
    });
    try {
      return await Promise.race([promise, late]);
    } finally {
      clearTimeout(timer);
    }
  };
  const all = () => `${text.stdout.slice(-3000)}\n${text.stderr.slice(-3000)}`;
  return {
    pid: child.pid,
    ended,
    text,
    signal(signal) {
      try {
        child.kill(signal);
      } catch {
        // It has ended.
      }
    },
    within: (seconds) => limited(ended, seconds, "end"),
    async until(pattern, seconds) {
      const found = Promise.withResolvers<RegExpExecArray>();
      const look = () => {
        const match = pattern.exec(text.stdout) ?? pattern.exec(text.stderr);
        if (match) found.resolve(match);
      };
      listeners.add(look);
      look();
      try {
        const without = ended.then(({ code, signal }) => {
          look();
          found.reject(new Error(`Ended with ${signal ?? code} before ${pattern}\n${all()}`));
        });
        void without;
        return await limited(found.promise, seconds, String(pattern));
      } finally {
        listeners.delete(look);
      }
    },
  };
}
