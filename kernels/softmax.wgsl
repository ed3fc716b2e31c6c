{{PRELUDE}}
struct Parameters { originX: u32, originY: u32, originZ: u32, rows: u32, values: u32 }
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 x {{VALUE}}}}
{{storage 2 y {{VALUE}}}}

@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let lane = local % LANES;
  let first = firstRow(workgroup.x + p.originX, local);
  for (var row = first; row < endRow(first, p.rows); row += 1u) {
    let start = row * p.values;
    var top = Value(-1e30);
{{EACH}}
    let x# = within(load_x(start + i#), -1e30, i#, p.values);
    top = max(top, x#);
{{END}}
    let m = maxOver(largest(top), lane);
    var sum = Value(0.0);
{{EACH}}
[anew]    let x# = load_x(start + i#);
    let e# = exp(x# - m);
    sum += e#;
{{END}}
    let z = 1.0 / sumOver(total(sum), lane);
{{EACH}}
[anew]    let e# = exp(load_x(start + i#) - m);
    {{STORE i#}}{ store_y(start + i#, e# * z); }
{{END}}
  }
}
