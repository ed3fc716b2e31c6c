struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  sequenceLength: u32, heads: u32, keyValueHeads: u32, scale: f32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 qkv {{TYPE}}}}
{{storage 2 dy {{TYPE}}}}
{{storage 3 logSumExp f32}}
{{storage 4 delta f32}}
{{storage 5 dqkv {{TYPE}}}}
{{storage 6 y {{TYPE}}}}

fn total(v: {{TYPE}}) -> f32 { return {{TOTAL}}; }

// Thread: one query of one head of one sequence.
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
  let dyAt = (row * p.heads + head) * {{VALUES}}u;
  let lse = load_logSumExp(row * p.heads + head);
  var products = {{TYPE}}(0.0);
  for (var i = 0u; i < {{VALUES}}u; i += 1u) { products += load_y(dyAt + i) * load_dy(dyAt + i); }
  let d = total(products);
  store_delta(row * p.heads + head, d);
  var acc: array<{{TYPE}}, {{VALUES}}>;
  for (var i = 0u; i < {{VALUES}}u; i += 1u) { acc[i] = {{TYPE}}(0.0); }
  for (var j = 0u; j <= query; j += 1u) {
    var x = {{TYPE}}(0.0);
    var z = {{TYPE}}(0.0);
    for (var i = 0u; i < {{VALUES}}u; i += 1u) {
      x += load_qkv(queryAt + i) * load_qkv(keyAt + j * stride + i);
      z += load_dy(dyAt + i) * load_qkv(valueAt + j * stride + i);
    }
    let ds = exp(total(x) * p.scale - lse) * (total(z) - d) * p.scale;
    for (var i = 0u; i < {{VALUES}}u; i += 1u) { acc[i] += ds * load_qkv(keyAt + j * stride + i); }
  }
  for (var i = 0u; i < {{VALUES}}u; i += 1u) { store_dqkv(queryAt + i, acc[i]); }
}
