/** Flags of commands that work with other machines. */

import type { NodeFlags } from "../train/node_place.ts";
import { optionalNumber, type Options } from "./values.ts";

/** The flags among a command's options as commander gives them. */
export function nodeFlags(options: Options): NodeFlags {
  const text = (name: string) => options[name] === undefined ? undefined : String(options[name]);
  return {
    nodes: optionalNumber(options, "nodes", { least: 1, whole: true }),
    rendezvous: text("rendezvous"),
    nodeRank: optionalNumber(options, "nodeRank", { least: 0, whole: true }),
    listen: text("listen"),
    secretFile: text("secretFile"),
    tlsCert: text("tlsCert"),
    tlsKey: text("tlsKey"),
    tlsCa: text("tlsCa"),
  };
}
