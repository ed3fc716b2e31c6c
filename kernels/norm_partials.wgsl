struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  rows: u32, values: u32, blockRows: u32, blockStart: u32, centered: u32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 x {{TYPE}}}}
{{storage 2 dy {{TYPE}}}}
{{storage 3 rstd f32}}
{{storage 4 mean f32}}
{{storage 5 partials {{TYPE}}}}
const LANES = {{LANES}}u;

// A row of partials has those of the weight, then, if the norm is centered, those of the bias.
fn put(block: u32, column: u32, weight: {{TYPE}}, bias: {{TYPE}}) {
  let p = parameters;
  if (column >= p.values) { return; }
  if (p.centered == 0u) {
    store_partials(block * p.values + column, weight);
  } else {
    store_partials(2u * block * p.values + column, weight);
    store_partials((2u * block + 1u) * p.values + column, bias);
  }
}

// Thread: columns (of vectors) of one block of rows.
@compute @workgroup_size({{LANES}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let p = parameters;
  let group = workgroup + vec3u(p.originX, p.originY, p.originZ);
  let column = group.x * {{COLUMNS}}u + local.x;
  let first = group.y * p.blockRows;
  let end = min(first + p.blockRows, p.rows);
{{EACH}}
  var w# = {{TYPE}}(0.0);
  var b# = {{TYPE}}(0.0);
{{END}}
  for (var row = first; row < end; row += {{STEP}}u) {
    let i = row * p.values + column;
[columns]    let r = load_rstd(row);
[columns]    var mu = 0.0;
[columns]    if (p.centered != 0u) { mu = load_mean(row); }
{{EACH}}
[columns]    let g# = load_dy(i + #u * LANES);
[columns]    w# += g# * ((load_x(i + #u * LANES) - mu) * r);
[columns]    b# += g#;
[rows]    if (row + #u < end) {
[rows]      var mu = 0.0;
[rows]      if (p.centered != 0u) { mu = load_mean(row + #u); }
[rows]      let g = load_dy(i + #u * p.values);
[rows]      w# += g * ((load_x(i + #u * p.values) - mu) * load_rstd(row + #u));
[rows]      b# += g;
[rows]    }
{{END}}
  }
  let block = p.blockStart + group.y;
{{EACH}}
[columns]  put(block, column + #u * LANES, w#, b#);
{{END}}
[rows]  put(block, column, (w0 + w1) + (w2 + w3), (b0 + b1) + (b2 + b3));
}
