{{PRELUDE}}
struct Parameters { originX: u32, originY: u32, originZ: u32, rows: u32, values: u32 }
@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> y: array<Value>;
@group(0) @binding(2) var<storage, read_write> dy: array<Value>;
@group(0) @binding(3) var<storage, read_write> dx: array<Value>;

@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let row = (workgroup.x + p.originX) * ROWS + local / LANES;
  let lane = local % LANES;
  if (row >= p.rows) { return; }
  let start = row * p.values;
  var sum = Value(0.0);
  for (var i = lane; i < p.values; i += LANES) { sum += y[start + i] * dy[start + i]; }
  let d = sumOver(total(sum), lane);
  for (var i = lane; i < p.values; i += LANES) { dx[start + i] = y[start + i] * (dy[start + i] - d); }
}
