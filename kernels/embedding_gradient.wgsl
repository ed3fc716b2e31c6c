struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  values: u32, firstRow: u32, rows: u32, tableStart: u32, tableRows: u32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(2) var<storage, read_write> order: array<u32>;
@group(0) @binding(3) var<storage, read_write> runs: array<u32>;
{{storage 4 dx {{TYPE}}}}
{{storage 5 dTable {{TYPE}}}}

// Thread: one vector of the row of the table that a run of equal tokens belongs to.
@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let column = (workgroup.x + p.originX) * 32u + local;
  let place = workgroup.y + p.originY;
  let length = runs[place];
  if (column >= p.values || length == 0u) { return; }
  let token = tokens[order[place]] - p.tableStart;
  if (token >= p.tableRows) { return; }
  var sum = {{TYPE}}(0.0);
  for (var i = 0u; i < length; i += 1u) {
    let row = order[place + i] - p.firstRow;
    if (row < p.rows) { sum += load_dx(row * p.values + column); }
  }
  store_dTable(token * p.values + column, load_dTable(token * p.values + column) + sum);
}
