/** Nodes in processes of their own, and what they say. */

import assert from "node:assert/strict";
import type { Said, Terms } from "./node_process.ts";
import { group, secret } from "./link_pairs.ts";

const program = new URL("node_process.ts", import.meta.url).pathname;
const secretText = new TextDecoder().decode(secret);
const running = new Set<Child>();

export type SaidOf<K extends Said["kind"]> = Extract<Said, { kind: K }>;
export const description = { version: "0.1.0", model: "abc", data: "def" };

export function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  listener.close();
  return listener.addr.port;
}

/** Terms of a node that knows none of its silent peers for longer than a second. */
export function termsOf(size: number, rest: Partial<Terms> = {}): Terms {
  return {
    size,
    rendezvous: `127.0.0.1:${freePort()}`,
    group,
    description,
    facts: {},
    lanes: 1,
    timeoutSeconds: 20,
    peerTimeoutSeconds: 1,
    ...rest,
  };
}

/** A node in a process. */
export class Child {
  readonly said: Said[] = [];
  readonly #process: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #ended: Promise<void>;
  #change = Promise.withResolvers<void>();

  constructor(terms: Terms, env: Record<string, string> = { MUSTER_SECRET: secretText }) {
    const args = ["run", "-A", "--quiet", program, JSON.stringify(terms)];
    const piped = { stdin: "piped", stdout: "piped", stderr: "inherit" } as const;
    this.#process = new Deno.Command(Deno.execPath(), { args, env, ...piped }).spawn();
    this.#writer = this.#process.stdin.getWriter();
    this.#ended = this.#listen();
    running.add(this);
  }

  get pid(): number {
    return this.#process.pid;
  }

  kill(signal: Deno.Signal = "SIGKILL"): void {
    try {
      this.#process.kill(signal);
    } catch {
      // It has ended.
    }
  }

  /** Gives it a line; waits for nothing. */
  tell(line: string): void {
    this.#writer.write(new TextEncoder().encode(`${line}\n`)).catch(() => {});
  }

  /** The first thing of a kind that it says from the given one on, and that `fits`. */
  async hears<K extends Said["kind"]>(
    kind: K,
    fits: (said: SaidOf<K>) => boolean = () => true,
    from = 0,
    seconds = 20,
  ): Promise<SaidOf<K>> {
    const deadline = performance.now() + 1000 * seconds;
    for (;;) {
      const found = this.said.slice(from).find((said) => said.kind === kind && fits(said as SaidOf<K>));
      if (found) return found as SaidOf<K>;
      const left = deadline - performance.now();
      assert.ok(left > 0, `waited in vain for "${kind}" of ${JSON.stringify(this.said)}`);
      let timer: ReturnType<typeof setTimeout> | undefined;
      await Promise.race([
        this.#change.promise,
        new Promise<void>((resolve) => timer = setTimeout(resolve, left)),
      ]);
      clearTimeout(timer);
    }
  }

  /** Its world of so many members. */
  world(number: number): Promise<SaidOf<"world">> {
    return this.hears("world", (world) => world.number === number);
  }

  async end(): Promise<void> {
    this.kill();
    await this.#writer.close().catch(() => {});
    await this.#ended;
    running.delete(this);
  }

  async #listen(): Promise<void> {
    let rest = "";
    for await (const text of this.#process.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      this.said.push(...lines.map((line) => JSON.parse(line) as Said));
      this.#change.resolve();
      this.#change = Promise.withResolvers();
    }
    await this.#process.status;
  }
}

/** Starts nodes at once. */
export function start(...all: Terms[]): Child[] {
  return all.map((terms) => new Child(terms));
}

/** Starts nodes of which the first hosts, and that only when the others are up: it would not wait long for more than the least. */
export async function startTogether(host: Terms, ...others: Terms[]): Promise<Child[]> {
  const nodes = start(...others);
  await Promise.all(nodes.map((node) => node.hears("opened")));
  return [new Child(host), ...nodes];
}

/** A test with nodes, which end with it. */
export function nodesTest(name: string, body: () => Promise<void>): void {
  Deno.test(name, async () => {
    try {
      await body();
    } finally {
      await Promise.all([...running].map((child) => child.end()));
    }
  });
}
