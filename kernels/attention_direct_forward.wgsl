struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  sequenceLength: u32, heads: u32, keyValueHeads: u32, scale: f32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 qkv {{TYPE}}}}
{{storage 2 y {{TYPE}}}}
{{storage 3 logSumExp f32}}

fn total(v: {{TYPE}}) -> f32 { return {{TOTAL}}; }

// Thread: one query of one head of one sequence. Private arrays, since head sizes are large and load instructions cost
// compile time; the fast families name every vector.
@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let group = workgroup + vec3u(p.originX, p.originY, p.originZ);
  let T = p.sequenceLength;
  let groupSize = p.heads / p.keyValueHeads;
  let query = (group.x * 32u + local) / groupSize;
  if (query >= T) { return; }
  let head = group.y * groupSize + (group.x * 32u + local) % groupSize;
  let stride = (p.heads + 2u * p.keyValueHeads) * {{VALUES}}u;
  let first = group.z * T;
  let row = first + query;
  let queryAt = row * stride + head * {{VALUES}}u;
  let keyAt = first * stride + (p.heads + group.y) * {{VALUES}}u;
  let valueAt = keyAt + p.keyValueHeads * {{VALUES}}u;
  var acc: array<{{TYPE}}, {{VALUES}}>;
  for (var i = 0u; i < {{VALUES}}u; i += 1u) { acc[i] = {{TYPE}}(0.0); }
  var m = -1e30;
  var sum = 0.0;
  for (var j = 0u; j <= query; j += 1u) {
    var x = {{TYPE}}(0.0);
    for (var i = 0u; i < {{VALUES}}u; i += 1u) { x += load_qkv(queryAt + i) * load_qkv(keyAt + j * stride + i); }
    let s = total(x) * p.scale;
    let mn = max(m, s);
    let c = exp(m - mn);
    let w = exp(s - mn);
    sum = sum * c + w;
    m = mn;
    for (var i = 0u; i < {{VALUES}}u; i += 1u) { acc[i] = acc[i] * c + w * load_qkv(valueAt + j * stride + i); }
  }
  let yAt = (row * p.heads + head) * {{VALUES}}u;
  for (var i = 0u; i < {{VALUES}}u; i += 1u) { store_y(yAt + i, acc[i] / sum); }
  store_logSumExp(row * p.heads + head, m + log(sum));
}
