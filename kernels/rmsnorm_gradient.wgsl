{{PRELUDE}}
struct Parameters { originX: u32, originY: u32, originZ: u32, rows: u32, values: u32, columns: f32, addend: u32 }
@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> x: array<Value>;
@group(0) @binding(2) var<storage, read_write> weight: array<Value>;
@group(0) @binding(3) var<storage, read_write> rstd: array<f32>;
@group(0) @binding(4) var<storage, read_write> dy: array<Value>;
@group(0) @binding(5) var<storage, read_write> addend: array<Value>;
@group(0) @binding(6) var<storage, read_write> dx: array<Value>;

@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let row = (workgroup.x + p.originX) * ROWS + local / LANES;
  let lane = local % LANES;
  if (row >= p.rows) { return; }
  let start = row * p.values;
  let r = rstd[row];
  var sum = Value(0.0);
  for (var i = lane; i < p.values; i += LANES) { sum += dy[start + i] * weight[i] * (x[start + i] * r); }
  let meanGX = sumOver(total(sum), lane) / p.columns;
  for (var i = lane; i < p.values; i += LANES) {
    var d = (dy[start + i] * weight[i] - x[start + i] * r * meanGX) * r;
    if (p.addend != 0u) { d += addend[start + i]; }
    dx[start + i] = d;
  }
}
