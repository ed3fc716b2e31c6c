struct Parameters { originX: u32, originY: u32, originZ: u32, vectors: u32, firstPartial: u32, vectorsPerThread: u32 }
@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> x: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> partials: array<f32>;
var<workgroup> parts: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let group = workgroup.x + p.originX;
  let first = group * 64u * p.vectorsPerThread + local;
  var sum = vec4f(0.0);
  for (var i = 0u; i < p.vectorsPerThread; i += 1u) {
    let index = first + i * 64u;
    if (index < p.vectors) {
      let v = x[index];
      sum += v * v;
    }
  }
  parts[local] = (sum.x + sum.y) + (sum.z + sum.w);
  workgroupBarrier();
  for (var stride = 32u; stride > 0u; stride >>= 1u) {
    if (local < stride) { parts[local] += parts[local + stride]; }
    workgroupBarrier();
  }
  if (local == 0u) { partials[p.firstPartial + group] = parts[0]; }
}
