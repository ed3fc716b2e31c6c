struct Parameters { originX: u32, originY: u32, originZ: u32, rows: u32, shares: u32 }
@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> shares: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> targets: array<i32>;
@group(0) @binding(3) var<storage, read_write> rowLoss: array<f32>;
@group(0) @binding(4) var<storage, read_write> statistics: array<vec2f>;

// Thread: one row, whose logits are split over ranks. A share is (maximum, Σ exp, logit of the target or 0, 0).
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let row = (workgroup.x + p.originX) * 64u + local;
  if (row >= p.rows) { return; }
  var m = -1e30;
  for (var i = 0u; i < p.shares; i += 1u) { m = max(m, shares[i * p.rows + row].x); }
  var z = 0.0;
  var hit = 0.0;
  for (var i = 0u; i < p.shares; i += 1u) {
    let share = shares[i * p.rows + row];
    z += share.y * exp(share.x - m);
    hit += share.z;
  }
  statistics[row] = vec2f(m, 1.0 / z);
  rowLoss[row] = select(0.0, log(z) - (hit - m), targets[row] >= 0);
}
