struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  values: u32, sequenceLength: u32, firstRow: u32, tableStart: u32, tableRows: u32, positions: u32, hasStart: u32,
  ownStart: u32, ownRows: u32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> tokens: array<u32>;
{{storage 2 table {{TYPE}}}}
{{storage 3 positionTable {{TYPE}}}}
@group(0) @binding(4) var<storage, read_write> start: array<u32>;
{{storage 5 x {{TYPE}}}}

// Thread: one vector of one row. Tokens outside the bound rows of the table belong to another dispatch, or to another
// rank: then they give 0 here.
@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let column = (workgroup.x + p.originX) * 32u + local;
  let row = workgroup.y + p.originY;
  if (column >= p.values) { return; }
  let token = tokens[row] - p.tableStart;
  var value = {{TYPE}}(0.0);
  if (token < p.tableRows) { value = load_table(token * p.values + column); }
  else if (tokens[row] - p.ownStart < p.ownRows) { return; }
  if (p.positions != 0u) {
    var position = (p.firstRow + row) % p.sequenceLength;
    if (p.hasStart != 0u) { position += start[0]; }
    value += load_positionTable(position * p.values + column);
  }
  store_x(row * p.values + column, value);
}
