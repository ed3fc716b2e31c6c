struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  sequenceLength: u32, heads: u32, keyValueHeads: u32, scale: f32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> qkv: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> logSumExp: array<f32>;
{{SHARED}}
// Thread: one query of one head of one sequence.
@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32{{LANE}}) {
  let p = parameters;
  let group = workgroup + vec3u(p.originX, p.originY, p.originZ);
  let T = p.sequenceLength;
  let last = T - 1u;
  let head = group.y;
  let keyValueHead = head / (p.heads / p.keyValueHeads);
  let stride = (p.heads + 2u * p.keyValueHeads) * {{VECTORS}}u;
  let first = group.z * T;
  let query = group.x * {{THREADS}}u + local;
  let row = first + min(query, last);
  let queryAt = row * stride + head * {{VECTORS}}u;
  let keyAt = first * stride + (p.heads + keyValueHead) * {{VECTORS}}u;
  let valueAt = keyAt + p.keyValueHeads * {{VECTORS}}u;
  let begin = 0u;
  let end = min(T, group.x * {{THREADS}}u + {{THREADS}}u);
  var m = -1e30;
  var sum = 0.0;
{{BODY}}
  if (query < T) {
    let r = 1.0 / sum;
    let yAt = (row * p.heads + head) * {{VECTORS}}u;
{{STORE}}
    logSumExp[row * p.heads + head] = m + log(sum);
  }
}
