struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  values: u32, firstRow: u32, rows: u32, sequenceLength: u32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 dx {{TYPE}}}}
{{storage 2 dPositions {{TYPE}}}}

// Thread: one vector of one position; sums over the sequences.
@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let column = (workgroup.x + p.originX) * 32u + local;
  let position = workgroup.y + p.originY;
  if (column >= p.values) { return; }
  var sum = {{TYPE}}(0.0);
  let first = (position + p.sequenceLength - p.firstRow % p.sequenceLength) % p.sequenceLength;
  for (var row = first; row < p.rows; row += p.sequenceLength) { sum += load_dx(row * p.values + column); }
  store_dPositions(position * p.values + column, load_dPositions(position * p.values + column) + sum);
}
