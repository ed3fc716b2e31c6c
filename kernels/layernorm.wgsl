{{PRELUDE}}
struct Parameters { originX: u32, originY: u32, originZ: u32, rows: u32, values: u32, columns: f32, epsilon: f32 }
@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> x: array<Value>;
@group(0) @binding(2) var<storage, read_write> weight: array<Value>;
@group(0) @binding(3) var<storage, read_write> bias: array<Value>;
@group(0) @binding(4) var<storage, read_write> y: array<Value>;
@group(0) @binding(5) var<storage, read_write> mean: array<f32>;
@group(0) @binding(6) var<storage, read_write> rstd: array<f32>;

@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let row = (workgroup.x + p.originX) * ROWS + local / LANES;
  let lane = local % LANES;
  if (row >= p.rows) { return; }
  let start = row * p.values;
  var sum = Value(0.0);
  for (var i = lane; i < p.values; i += LANES) { sum += x[start + i]; }
  let mu = sumOver(total(sum), lane) / p.columns;
  var squares = Value(0.0);
  for (var i = lane; i < p.values; i += LANES) {
    let d = x[start + i] - mu;
    squares += d * d;
  }
  let r = 1.0 / sqrt(sumOver(total(squares), lane) / p.columns + p.epsilon);
  for (var i = lane; i < p.values; i += LANES) { y[start + i] = (x[start + i] - mu) * r * weight[i] + bias[i]; }
  if (lane == 0u) {
    mean[row] = mu;
    rstd[row] = r;
  }
}
