struct Parameters { originX: u32, originY: u32, originZ: u32, count: u32 }
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 x vec4f}}
{{storage 2 y vec4f}}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = (workgroup.x + parameters.originX) * 64u + local;
  if (i >= parameters.count) { return; }
  let v = load_x(i);
  store_y(i, v * sigmoid(v));
}
