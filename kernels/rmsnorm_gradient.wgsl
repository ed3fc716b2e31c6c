{{PRELUDE}}
struct Parameters { originX: u32, originY: u32, originZ: u32, rows: u32, values: u32, columns: f32, addend: u32 }
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 x {{VALUE}}}}
{{storage 2 weight {{VALUE}}}}
{{storage 3 rstd f32}}
{{storage 4 dy {{VALUE}}}}
{{storage 5 addend {{VALUE}}}}
{{storage 6 dx {{VALUE}}}}

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
    let r = load_rstd(row);
    var sum = Value(0.0);
{{EACH}}
[anew]    let weight# = load_weight(i#);
    let g# = within(load_dy(start + i#) * weight#, 0.0, i#, p.values);
    let n# = within(load_x(start + i#) * r, 0.0, i#, p.values);
    sum += g# * n#;
{{END}}
    let meanGX = sumOver(total(sum), lane) / p.columns;
{{EACH}}
[anew]    let g# = load_dy(start + i#) * load_weight(i#);
[anew]    let n# = load_x(start + i#) * r;
    var d# = (g# - n# * meanGX) * r;
    if (p.addend != 0u) { d# += load_addend(start + i#); }
    {{STORE i#}}{ store_dx(start + i#, d#); }
{{END}}
  }
}
