struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  rows: u32, columns: u32, blockRows: u32, blockStart: u32, accumulate: u32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> x: array<{{TYPE}}>;
@group(0) @binding(2) var<storage, read_write> sum: array<{{TYPE}}>;

// Thread: one column (of vectors) of one block of rows.
@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let p = parameters;
  let group = workgroup + vec3u(p.originX, p.originY, p.originZ);
  let column = group.x * 32u + local.x;
  if (column >= p.columns) { return; }
  let first = group.y * p.blockRows;
  let end = min(first + p.blockRows, p.rows);
  var s0 = {{TYPE}}(0.0);
  var s1 = {{TYPE}}(0.0);
  var s2 = {{TYPE}}(0.0);
  var s3 = {{TYPE}}(0.0);
  var row = first;
  for (; row + 4u <= end; row += 4u) {
    let i = row * p.columns + column;
    s0 += x[i];
    s1 += x[i + p.columns];
    s2 += x[i + 2u * p.columns];
    s3 += x[i + 3u * p.columns];
  }
  for (; row < end; row += 1u) { s0 += x[row * p.columns + column]; }
  let total = (s0 + s1) + (s2 + s3);
  let index = (p.blockStart + group.y) * p.columns + column;
  if (p.accumulate != 0u) { sum[index] += total; } else { sum[index] = total; }
}
