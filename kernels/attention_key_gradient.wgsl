struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  sequenceLength: u32, heads: u32, keyValueHeads: u32, scale: f32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> qkv: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> dy: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> logSumExp: array<f32>;
@group(0) @binding(4) var<storage, read_write> delta: array<f32>;
@group(0) @binding(5) var<storage, read_write> dqkv: array<vec4f>;
{{SHARED}}
// Thread: one key (and its value) of one key/value head of one sequence; sums over the queries of all heads that read it.
@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32{{LANE}}) {
  let p = parameters;
  let group = workgroup + vec3u(p.originX, p.originY, p.originZ);
  let T = p.sequenceLength;
  let last = T - 1u;
  let keyValueHead = group.y;
  let groupSize = p.heads / p.keyValueHeads;
  let stride = (p.heads + 2u * p.keyValueHeads) * {{VECTORS}}u;
  let dyStride = p.heads * {{VECTORS}}u;
  let first = group.z * T;
  let key = group.x * {{THREADS}}u + local;
  let row = first + min(key, last);
  let keyAt = row * stride + (p.heads + keyValueHead) * {{VECTORS}}u;
  let valueAt = keyAt + p.keyValueHeads * {{VECTORS}}u;
  let begin = group.x * {{THREADS}}u;
  let end = T;
{{BODY}}
  if (key < T) {
{{STORE}}
  }
}
