{{PRELUDE}}
struct Parameters { originX: u32, originY: u32, originZ: u32, rows: u32, values: u32, columns: f32, epsilon: f32 }
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 x {{VALUE}}}}
{{storage 2 weight {{VALUE}}}}
{{storage 3 y {{VALUE}}}}
{{storage 4 rstd f32}}

@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let lane = local % LANES;
{{EACH}}
[held]  let weight# = load_weight(i#);
{{END}}
  let first = firstRow(workgroup.x + p.originX, local);
  for (var row = first; row < endRow(first, p.rows); row += 1u) {
    let start = row * p.values;
    var squares = Value(0.0);
{{EACH}}
    let x# = within(load_x(start + i#), 0.0, i#, p.values);
    squares += x# * x#;
{{END}}
    let r = 1.0 / sqrt(sumOver(total(squares), lane) / p.columns + p.epsilon);
{{EACH}}
[anew]    let x# = load_x(start + i#);
[anew]    let weight# = load_weight(i#);
    {{STORE i#}}{ store_y(start + i#, x# * r * weight#); }
{{END}}
    if (lane == 0u) { store_rstd(row, r); }
  }
}
