/**
 * The end of the process.
 * @module
 */

/**
 * Has the process leave without the C library's exit handlers, where programs may call it (Linux, with permission for FFI). Those
 * handlers take LLVM apart, also while a Worker still has its driver compile, or its device let go of: of processes that ended
 * so, by an interrupt or behind their last line, some crashed. What was written is out by then, and the system frees the rest.
 */
export function leaveWithoutHandlers(): void {
  if (Deno.build.os !== "linux") return;
  if (Deno.permissions.querySync({ name: "ffi" }).state !== "granted") return;
  addEventListener("unload", () => {
    try {
      Deno.dlopen("libc.so.6", { _exit: { parameters: ["i32"], result: "void" } }).symbols._exit(Deno.exitCode);
    } catch {
      // Another C library: the ordinary way.
    }
  });
}
