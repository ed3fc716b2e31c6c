struct Parameters { originX: u32, originY: u32, originZ: u32, rows: u32, values: u32, blockRows: u32, blockStart: u32, centered: u32 }
@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> x: array<{{TYPE}}>;
@group(0) @binding(2) var<storage, read_write> mean: array<f32>;
@group(0) @binding(3) var<storage, read_write> rstd: array<f32>;
@group(0) @binding(4) var<storage, read_write> dy: array<{{TYPE}}>;
@group(0) @binding(5) var<storage, read_write> weightPartials: array<{{TYPE}}>;
@group(0) @binding(6) var<storage, read_write> biasPartials: array<{{TYPE}}>;

// Thread: one column (of vectors) of one block of rows.
@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let p = parameters;
  let group = workgroup + vec3u(p.originX, p.originY, p.originZ);
  let column = group.x * 32u + local.x;
  if (column >= p.values) { return; }
  let first = group.y * p.blockRows;
  let end = min(first + p.blockRows, p.rows);
  var sumW = {{TYPE}}(0.0);
  var sumB = {{TYPE}}(0.0);
  for (var row = first; row < end; row += 1u) {
    let i = row * p.values + column;
    let g = dy[i];
    var d = x[i];
    if (p.centered != 0u) { d -= mean[row]; }
    sumW += g * (d * rstd[row]);
    sumB += g;
  }
  let index = (p.blockStart + group.y) * p.values + column;
  weightPartials[index] = sumW;
  if (p.centered != 0u) { biasPartials[index] = sumB; }
}
