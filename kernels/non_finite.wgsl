struct Parameters { originX: u32, originY: u32, originZ: u32, count: u32 }
@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> found: array<atomic<u32>>;

// By bits: comparisons and arithmetic on NaN and infinity may be optimized away.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let first = ((workgroup.x + parameters.originX) * 64u + local) * 4u;
  var bad = 0u;
  for (var i = first; i < min(first + 4u, parameters.count); i += 1u) {
    if ((x[i] & 0x7f800000u) == 0x7f800000u) { bad += 1u; }
  }
  if (bad != 0u) { atomicAdd(&found[0], bad); }
}
