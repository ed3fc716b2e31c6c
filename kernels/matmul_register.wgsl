struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  M: u32, N: u32, K: u32,
  lda: u32, ldb: u32, ldc: u32,
  aStart: u32, cStart: u32, biasStart: u32,
  aBatch: u32, bBatch: u32, cBatch: u32, partTerms: u32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{OPERANDS}}
{{EPILOGUE}}

@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_id) local: vec3u{{LANE}}) {
  let p = parameters;
  let group = (workgroup + vec3u(p.originX, p.originY, p.originZ)).{{ORDER}};
  let row = group.y * {{ROWS}}u;
  let aStart = (p.aStart + group.z * p.aBatch) / {{WIDTH}}u;
  let bStart = (group.z * p.bBatch) / {{WIDTH}}u;
  let cStart = (p.cStart + group.z * p.cBatch) / {{C_WIDTH}}u;
  let lastRow = p.M - 1u;
  let first = group.x * {{THREADS}}u + local.x;
{{TERMS}}
{{BODY}}
}
