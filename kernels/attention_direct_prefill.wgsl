struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  rows: u32, heads: u32, keyValueHeads: u32, scale: f32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 qkv {{TYPE}}}}
@group(0) @binding(2) var<storage, read_write> position: array<u32>;
{{storage 3 keys {{TYPE}}}}
{{storage 4 values {{TYPE}}}}
{{storage 5 y {{TYPE}}}}
// Workgroup: 32 queries, numbered by row and, within one, by the heads that share a key/value head.
@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let group = workgroup + vec3u(p.originX, p.originY, p.originZ);
  let groupSize = p.heads / p.keyValueHeads;
  let stride = p.keyValueHeads * {{VALUES}}u;
  let keyAt = group.y * {{VALUES}}u;
  let first = position[0];
  let n = group.x * 32u + local;
  if (n >= p.rows * groupSize) { return; }
  let head = group.y * groupSize + n % groupSize;
  let queryAt = (n / groupSize * (p.heads + 2u * p.keyValueHeads) + head) * {{VALUES}}u;
  var acc: array<{{TYPE}}, {{VALUES}}>;
  for (var i = 0u; i < {{VALUES}}u; i += 1u) { acc[i] = {{TYPE}}(0.0); }
  var m = -1e30;
  var sum = 0.0;
  for (var j = 0u; j <= first + n / groupSize; j += 1u) {
    var v = {{TYPE}}(0.0);
    for (var i = 0u; i < {{VALUES}}u; i += 1u) { v += load_qkv(queryAt + i) * load_keys(keyAt + j * stride + i); }
    let s = ({{TOTAL}}) * p.scale;
    let t = max(m, s);
    let c = exp(m - t);
    let w = exp(s - t);
    sum = sum * c + w;
    m = t;
    for (var i = 0u; i < {{VALUES}}u; i += 1u) { acc[i] = acc[i] * c + w * load_values(keyAt + j * stride + i); }
  }
  let yAt = (n / groupSize * p.heads + head) * {{VALUES}}u;
  for (var i = 0u; i < {{VALUES}}u; i += 1u) { store_y(yAt + i, acc[i] / sum); }
}
