struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  sequenceLength: u32, heads: u32, keyValueHeads: u32, scale: f32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> qkv: array<{{TYPE}}>;
@group(0) @binding(2) var<storage, read_write> dy: array<{{TYPE}}>;
@group(0) @binding(3) var<storage, read_write> logSumExp: array<f32>;
@group(0) @binding(4) var<storage, read_write> delta: array<f32>;
@group(0) @binding(5) var<storage, read_write> dqkv: array<{{TYPE}}>;

fn total(v: {{TYPE}}) -> f32 { return {{TOTAL}}; }

// Thread: one query of one head of one sequence.
@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let group = workgroup + vec3u(p.originX, p.originY, p.originZ);
  let T = p.sequenceLength;
  let query = group.x * 32u + local;
  if (query >= T) { return; }
  let head = group.y;
  let stride = (p.heads + 2u * p.keyValueHeads) * {{VALUES}}u;
  let first = group.z * T;
  let row = first + query;
  let queryAt = row * stride + head * {{VALUES}}u;
  let keyAt = first * stride + (p.heads + head / (p.heads / p.keyValueHeads)) * {{VALUES}}u;
  let valueAt = keyAt + p.keyValueHeads * {{VALUES}}u;
  let dyAt = (row * p.heads + head) * {{VALUES}}u;
  let lse = logSumExp[row * p.heads + head];
  let d = delta[row * p.heads + head];
  var acc: array<{{TYPE}}, {{VALUES}}>;
  for (var i = 0u; i < {{VALUES}}u; i += 1u) { acc[i] = {{TYPE}}(0.0); }
  for (var j = 0u; j <= query; j += 1u) {
    var x = {{TYPE}}(0.0);
    var z = {{TYPE}}(0.0);
    for (var i = 0u; i < {{VALUES}}u; i += 1u) {
      x += qkv[queryAt + i] * qkv[keyAt + j * stride + i];
      z += dy[dyAt + i] * qkv[valueAt + j * stride + i];
    }
    let ds = exp(total(x) * p.scale - lse) * (total(z) - d) * p.scale;
    for (var i = 0u; i < {{VALUES}}u; i += 1u) { acc[i] += ds * qkv[keyAt + j * stride + i]; }
  }
  for (var i = 0u; i < {{VALUES}}u; i += 1u) { dqkv[queryAt + i] = acc[i]; }
}
