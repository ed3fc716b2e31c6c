struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  M: u32, N: u32, K: u32,
  lda: u32, ldb: u32, ldc: u32,
  aStart: u32, bStart: u32, cStart: u32, biasStart: u32,
  aBatch: u32, bBatch: u32, cBatch: u32,
  flags: u32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> a: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> b: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> c: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> bias: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> addend: array<vec4f>;

// 16 steps of k, of 64 rows of A and 64 columns of B; 4 KiB each. Scalars, since one operand may arrive transposed.
var<workgroup> tileA: array<f32, 1024>;
var<workgroup> tileB: array<f32, 1024>;

fn store(row: u32, column: u32, start: u32, sum: vec4f) {
  let p = parameters;
  if (row < p.M && column < p.N / 4u) {
    let index = start + row * (p.ldc / 4u) + column;
    var value = sum;
    if ((p.flags & 1u) != 0u) { value += bias[p.biasStart / 4u + column]; }
    if ((p.flags & 2u) != 0u) { value += addend[index]; }
    if ((p.flags & 4u) != 0u) { value += c[index]; }
    c[index] = value;
  }
}

@compute @workgroup_size(16, 8)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_id) local: vec3u,
  @builtin(local_invocation_index) thread: u32) {
  let p = parameters;
  let group = workgroup + vec3u(p.originX, p.originY, p.originZ);
  let row = group.y * 64u;
  let column = group.x * 64u;
  let aStart = (p.aStart + group.z * p.aBatch) / 4u;
  let bStart = (p.bStart + group.z * p.bBatch) / 4u;
  let cStart = (p.cStart + group.z * p.cBatch) / 4u;
{{BODY}}
}
