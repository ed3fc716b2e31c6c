struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  M: u32, N: u32, K: u32,
  lda: u32, ldb: u32, ldc: u32,
  aStart: u32, bStart: u32, cStart: u32, biasStart: u32,
  aBatch: u32, bBatch: u32, cBatch: u32,
  flags: u32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> a: array<{{A_TYPE}}>;
@group(0) @binding(2) var<storage, read_write> b: array<{{B_TYPE}}>;
@group(0) @binding(3) var<storage, read_write> c: array<{{C_TYPE}}>;
@group(0) @binding(4) var<storage, read_write> bias: array<{{C_TYPE}}>;
@group(0) @binding(5) var<storage, read_write> addend: array<{{C_TYPE}}>;

fn store(row: u32, column: u32, start: u32, sum: {{C_TYPE}}) {
  let p = parameters;
  if (row < p.M && column < p.N / {{C_WIDTH}}u) {
    let index = start + row * (p.ldc / {{C_WIDTH}}u) + column;
    var value = sum;
    if ((p.flags & 1u) != 0u) { value += bias[p.biasStart / {{C_WIDTH}}u + column]; }
    if ((p.flags & 2u) != 0u) { value += addend[index]; }
    if ((p.flags & 4u) != 0u) { value += c[index]; }
    c[index] = value;
  }
}

@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_id) local: vec3u{{LANE}}) {
  let p = parameters;
  let group = workgroup + vec3u(p.originX, p.originY, p.originZ);
  let row = group.y * {{ROWS}}u;
  let aStart = p.aStart + group.z * p.aBatch;
  let bStart = p.bStart + group.z * p.bBatch;
  let cStart = (p.cStart + group.z * p.cBatch) / {{C_WIDTH}}u;
  let lastRow = p.M - 1u;
  let first = group.x * {{COLUMNS}}u + local.x;
{{BODY}}
}
