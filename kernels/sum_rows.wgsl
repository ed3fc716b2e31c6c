struct Parameters { originX: u32, originY: u32, originZ: u32, count: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> sum: array<f32>;
var<workgroup> parts: array<f32, 64>;

// One workgroup.
@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) local: u32) {
  let p = parameters;
  var total = 0.0;
  for (var block = local; block < p.count; block += 64u * 32u) {
    var part = 0.0;
    for (var i = block; i < min(block + 64u * 32u, p.count); i += 64u) { part += x[i]; }
    total += part;
  }
  parts[local] = total;
  workgroupBarrier();
  for (var stride = 32u; stride > 0u; stride >>= 1u) {
    if (local < stride) { parts[local] += parts[local + stride]; }
    workgroupBarrier();
  }
  if (local == 0u) {
    if (p.accumulate != 0u) { sum[0] += parts[0]; } else { sum[0] = parts[0]; }
  }
}
