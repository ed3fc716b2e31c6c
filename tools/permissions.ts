/** What the one-file forms may do: fixed when they are built, and no more than their commands need. */

/** A permission, as Deno's flag for it. */
export interface Permission {
  readonly flag: string;
  readonly reason: string;
}

/** All permissions. */
export const permissions: readonly Permission[] = [
  {
    flag: "--allow-read",
    reason: "data, tokenizers, models, checkpoints and certificates, wherever the user keeps them",
  },
  {
    flag: "--allow-write",
    reason: "runs, checkpoints, prepared data, plots and the cache, wherever the user wants them",
  },
  {
    flag: "--allow-net",
    reason: "the other machines of a run, by any address and port; npm's registry for datasets by name",
  },
  {
    flag: "--allow-env",
    reason:
      "settings of Vulkan's loader and drivers, which are also set to open one GPU among several; launchers' ranks " +
      "(Slurm, MPI, Kubernetes); the cache's place",
  },
  {
    flag: "--allow-sys=hostname,networkInterfaces,statfs,systemMemoryInfo,uid",
    reason:
      "this machine's name and addresses for the others, the room on its disk and in its memory, and the user's own " +
      "temporary folder",
  },
  {
    flag: "--allow-ffi",
    reason:
      "the Vulkan loader, which alone tells the GPUs apart and their memory; the C library's sockets, and its way to end a " +
      "process; the system knows where these are, so no path can be named",
  },
  {
    flag: "--allow-run",
    reason:
      "itself: a second process trains, so that the first is left to say what happened when a driver ends it. Deno " +
      "cannot name a program before it is known where it will lie",
  },
];

/** The flags, for `deno run` and `deno compile`: no code is fetched, and what is not allowed fails and is not asked for. */
export const permissionFlags: readonly string[] = [
  ...permissions.map(({ flag }) => flag),
  "--deny-import",
  "--no-prompt",
];
