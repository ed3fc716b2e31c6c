{{PRELUDE}}
struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  rows: u32, values: u32, columns: f32, addend: u32, blockStart: u32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 x {{VALUE}}}}
{{storage 2 weight {{VALUE}}}}
{{storage 3 dy {{VALUE}}}}
{{storage 4 rstd f32}}
{{storage 5 mean f32}}
{{storage 6 addend {{VALUE}}}}
{{storage 7 dx {{VALUE}}}}
{{storage 8 partials {{VALUE}}}}
// Whether rows have a mean and there is a bias: layer norm.
const CENTERED = {{CENTERED}};

@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let lane = local % LANES;
{{EACH}}
[held]  let weight# = load_weight(i#);
[held]  var dw# = Value(0.0);
[held]  var db# = Value(0.0);
{{END}}
  let group = workgroup.x + p.originX;
  let first = firstRow(group, local);
  for (var row = first; row < endRow(first, p.rows); row += 1u) {
    let start = row * p.values;
    var mu = 0.0;
    if (CENTERED) { mu = load_mean(row); }
    let r = load_rstd(row);
    var sum = Value(0.0);
    var sumX = Value(0.0);
{{EACH}}
[anew]    let weight# = load_weight(i#);
    let dy# = load_dy(start + i#);
    let g# = within(dy# * weight#, 0.0, i#, p.values);
    let n# = within((load_x(start + i#) - mu) * r, 0.0, i#, p.values);
    sum += g#;
    sumX += g# * n#;
[held]    dw# += dy# * n#;
[held]    db# += dy#;
{{END}}
    var meanG = 0.0;
    if (CENTERED) { meanG = sumOver(total(sum), lane) / p.columns; }
    let meanGX = sumOver(total(sumX), lane) / p.columns;
{{EACH}}
[anew]    let g# = load_dy(start + i#) * load_weight(i#);
[anew]    let n# = (load_x(start + i#) - mu) * r;
    var d# = (g# - meanG - n# * meanGX) * r;
    if (p.addend != 0u) { d# += load_addend(start + i#); }
    {{STORE i#}}{ store_dx(start + i#, d#); }
{{END}}
  }
  if (BLOCKS) {
    let block = select(1u, 2u, CENTERED) * (p.blockStart + group) * p.values;
{{EACH}}
[held]    {{STORE i#}}{
[held]      store_partials(block + i#, dw#);
[held]      if (CENTERED) { store_partials(block + p.values + i#, db#); }
[held]    }
{{END}}
  }
}
