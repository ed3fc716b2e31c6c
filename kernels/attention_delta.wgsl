struct Parameters { originX: u32, originY: u32, originZ: u32, count: u32, headSize: u32 }
@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> y: array<{{TYPE}}>;
@group(0) @binding(2) var<storage, read_write> dy: array<{{TYPE}}>;
@group(0) @binding(3) var<storage, read_write> delta: array<f32>;

// Thread: one head of one row.
@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = (workgroup.x + parameters.originX) * 32u + local;
  if (i >= parameters.count) { return; }
  let values = parameters.headSize / {{WIDTH}}u;
  var sum = {{TYPE}}(0.0);
  for (var k = 0u; k < values; k += 1u) { sum += y[i * values + k] * dy[i * values + k]; }
  delta[i] = {{TOTAL}};
}
