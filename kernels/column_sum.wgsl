struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  rows: u32, columns: u32, blockRows: u32, blockStart: u32, accumulate: u32, split: u32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 x {{TYPE}}}}
{{storage 2 sum {{TYPE}}}}
{{storage 3 more {{TYPE}}}}
const LANES = {{LANES}}u;

// The sums of columns from `split` on go into another tensor.
fn put(block: u32, column: u32, total: {{TYPE}}) {
  let p = parameters;
  if (column >= p.columns) { return; }
  if (column >= p.split) {
    let index = column - p.split;
    if (p.accumulate != 0u) { store_more(index, load_more(index) + total); } else { store_more(index, total); }
  } else {
    let index = block * p.columns + column;
    if (p.accumulate != 0u) { store_sum(index, load_sum(index) + total); } else { store_sum(index, total); }
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
  var s# = {{TYPE}}(0.0);
{{END}}
  for (var row = first; row < end; row += {{STEP}}u) {
    let i = row * p.columns + column;
{{EACH}}
[columns]    s# += load_x(i + #u * LANES);
[rows]    if (row + #u < end) { s# += load_x(i + #u * p.columns); }
{{END}}
  }
  let block = p.blockStart + group.y;
{{EACH}}
[columns]  put(block, column + #u * LANES, s#);
{{END}}
[rows]  put(block, column, (s0 + s1) + (s2 + s3));
}
