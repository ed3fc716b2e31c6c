/**
 * Loaded before each file of tests (`deno test --preload`): behind its last test it waits until the threads of its Workers are gone.
 * Deno does not tell when they are, and a test process that ends while one lets go of its device may crash (`cli/leave.ts`).
 */

/** One that is stuck must not keep the tests, in ms. */
const longest = 5000;

/** Threads of Workers, and those that their drivers have started, bear names like `worker-3`. */
function workersLeft(): boolean {
  return [...Deno.readDirSync("/proc/self/task")].some(({ name }) => {
    try {
      return Deno.readTextFileSync(`/proc/self/task/${name}/comm`).startsWith("worker-");
    } catch {
      return false; // It has just ended.
    }
  });
}

if (Deno.build.os === "linux" && !("WorkerGlobalScope" in globalThis)) {
  addEventListener("unload", () => {
    const sleeper = new Int32Array(new SharedArrayBuffer(4));
    const began = performance.now();
    while (workersLeft() && performance.now() - began < longest) Atomics.wait(sleeper, 0, 0, 5);
  });
}
