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

fn total(v: {{TYPE}}) -> f32 { return {{TOTAL}}; }

// Thread: one key (and its value) of one key/value head of one sequence; sums over the queries of all heads that read it.
@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let group = workgroup + vec3u(p.originX, p.originY, p.originZ);
  let T = p.sequenceLength;
  let key = group.x * 32u + local;
  if (key >= T) { return; }
  let groupSize = p.heads / p.keyValueHeads;
  let stride = (p.heads + 2u * p.keyValueHeads) * {{VALUES}}u;
  let first = group.z * T;
  let keyAt = (first + key) * stride + (p.heads + group.y) * {{VALUES}}u;
  let valueAt = keyAt + p.keyValueHeads * {{VALUES}}u;
  var dk: array<{{TYPE}}, {{VALUES}}>;
  var dv: array<{{TYPE}}, {{VALUES}}>;
  for (var i = 0u; i < {{VALUES}}u; i += 1u) {
    dk[i] = {{TYPE}}(0.0);
    dv[i] = {{TYPE}}(0.0);
  }
  for (var g = 0u; g < groupSize; g += 1u) {
    let head = group.y * groupSize + g;
    for (var query = key; query < T; query += 1u) {
      let row = first + query;
      let queryAt = row * stride + head * {{VALUES}}u;
      let dyAt = (row * p.heads + head) * {{VALUES}}u;
      var x = {{TYPE}}(0.0);
      var z = {{TYPE}}(0.0);
      for (var i = 0u; i < {{VALUES}}u; i += 1u) {
        x += load_qkv(queryAt + i) * load_qkv(keyAt + i);
        z += load_dy(dyAt + i) * load_qkv(valueAt + i);
      }
      let w = exp(total(x) * p.scale - load_logSumExp(row * p.heads + head));
      let ds = w * (total(z) - load_delta(row * p.heads + head)) * p.scale;
      for (var i = 0u; i < {{VALUES}}u; i += 1u) {
        dk[i] += ds * load_qkv(queryAt + i);
        dv[i] += w * load_dy(dyAt + i);
      }
    }
  }
  for (var i = 0u; i < {{VALUES}}u; i += 1u) {
    store_dqkv(keyAt + i, dk[i]);
    store_dqkv(valueAt + i, dv[i]);
  }
}
