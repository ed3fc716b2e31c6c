struct Parameters { originX: u32, originY: u32, originZ: u32, values: u32 }
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 gateUp {{TYPE}}}}
{{storage 2 dy {{TYPE}}}}
{{storage 3 dGateUp {{TYPE}}}}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let column = (workgroup.x + p.originX) * 64u + local;
  let row = workgroup.y + p.originY;
  if (column >= p.values) { return; }
  let gateAt = row * 2u * p.values + column;
  let upAt = gateAt + p.values;
  let gate = load_gateUp(gateAt);
  let s = sigmoid(gate);
  let d = load_dy(row * p.values + column);
  store_dGateUp(gateAt, d * load_gateUp(upAt) * (s + gate * s * (1.0 - s)));
  store_dGateUp(upAt, d * gate * s);
}
