/**
 * Repeating parts of WGSL texts with numbered names: loops are slow in what naga makes of them, and arrays that are indexed by
 * a variable do not stay in registers.
 * @module
 */

/**
 * Repeats what stands between `{{EACH}}` and `{{END}}` lines `count` times, with each `#` replaced by the number. Lines of the
 * text that begin with `[tag]` are kept, without it, if `tag` is given, and left out otherwise.
 */
export function unroll(text: string, count: number, tag: string): string {
  return withTag(text, tag).replaceAll(
    /\{\{EACH\}\}\n([^]*?)\{\{END\}\}\n/g,
    (_, block: string) => Array.from({ length: count }, (_, k) => block.replaceAll("#", `${k}`)).join(""),
  );
}

/** The lines of a text that have no `[tag]` or this one. */
export function withTag(text: string, tag: string): string {
  return text.replaceAll(/^\[(\w+)\](.*\n)/gm, (_, own: string, line: string) => own === tag ? line : "");
}
