/**
 * Sums and maxima over the threads that share a row: WGSL functions `sumOver(x, lane)` and `maxOver(x, lane)`, whose result all
 * of them get. They are called in uniform control flow.
 * @module
 */

/**
 * On a software driver `lanes` is one thread or a whole subgroup, whose values are broadcast and combined in pairs (a
 * subgroupAdd costs four times as much there); on a GPU a workgroup, which halves them in its memory.
 */
export function reductions(lanes: number, onGPU: boolean): string {
  if (lanes === 1) {
    return "fn sumOver(x: f32, lane: u32) -> f32 { return x; }\nfn maxOver(x: f32, lane: u32) -> f32 { return x; }";
  }
  if (!onGPU) {
    const over = (name: string, combine: (a: string, b: string) => string) => {
      let parts = Array.from({ length: lanes }, (_, i) => `subgroupBroadcast(x, ${i}u)`);
      while (parts.length > 1) {
        parts = Array.from({ length: parts.length / 2 }, (_, i) => combine(parts[2 * i], parts[2 * i + 1]));
      }
      return `fn ${name}(x: f32, lane: u32) -> f32 { return ${parts[0]}; }`;
    };
    return [over("sumOver", (a, b) => `(${a} + ${b})`), over("maxOver", (a, b) => `max(${a}, ${b})`)].join("\n");
  }
  const over = (name: string, combined: string) =>
    `fn ${name}(x: f32, lane: u32) -> f32 {
  shared_[lane] = x;
  workgroupBarrier();
  for (var stride = ${lanes / 2}u; stride > 0u; stride >>= 1u) {
    if (lane < stride) { let a = shared_[lane]; let b = shared_[lane + stride]; shared_[lane] = ${combined}; }
    workgroupBarrier();
  }
  let result = shared_[0];
  workgroupBarrier();
  return result;
}`;
  return [`var<workgroup> shared_: array<f32, ${lanes}>;`, over("sumOver", "a + b"), over("maxOver", "max(a, b)")].join(
    "\n",
  );
}
