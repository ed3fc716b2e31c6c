{{PRELUDE}}
struct Parameters { originX: u32, originY: u32, originZ: u32, rows: u32, values: u32 }
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 y {{VALUE}}}}
{{storage 2 dy {{VALUE}}}}
{{storage 3 dx {{VALUE}}}}

@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let lane = local % LANES;
  let first = firstRow(workgroup.x + p.originX, local);
  for (var row = first; row < endRow(first, p.rows); row += 1u) {
    let start = row * p.values;
    var sum = Value(0.0);
{{EACH}}
    let y# = within(load_y(start + i#), 0.0, i#, p.values);
    let g# = within(load_dy(start + i#), 0.0, i#, p.values);
    sum += y# * g#;
{{END}}
    let d = sumOver(total(sum), lane);
{{EACH}}
[anew]    let y# = load_y(start + i#);
[anew]    let g# = load_dy(start + i#);
    {{STORE i#}}{ store_dx(start + i#, y# * (g# - d)); }
{{END}}
  }
}
