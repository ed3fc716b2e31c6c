struct Parameters { originX: u32, originY: u32, originZ: u32, count: u32 }
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 x vec4f}}
{{storage 2 dy vec4f}}
{{storage 3 dx vec4f}}

@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let first = (workgroup.x + parameters.originX) * {{VECTORS}}u;
  let end = min(first + {{VECTORS}}u, parameters.count);
  for (var i = first + local; i < end; i += {{THREADS}}u) {
    let v = load_x(i);
    let s = sigmoid(v);
    store_dx(i, load_dy(i) * (s + v * s * (1.0 - s)));
  }
}
