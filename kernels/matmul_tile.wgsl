struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  M: u32, N: u32, K: u32,
  lda: u32, ldb: u32, ldc: u32,
  aStart: u32, cStart: u32, biasStart: u32,
  aBatch: u32, bBatch: u32, cBatch: u32, partTerms: u32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 a vec4f}}
{{storage 2 b vec4f}}
{{EPILOGUE}}

// STEPS of k, of ROWS rows of A and COLUMNS columns of B. Scalars, since one operand may arrive transposed.
var<workgroup> tileA: array<f32, {{SIZE_A}}>;
var<workgroup> tileB: array<f32, {{SIZE_B}}>;

@compute @workgroup_size({{WIDTH}}, {{HEIGHT}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_id) local: vec3u,
  @builtin(local_invocation_index) thread: u32) {
  let p = parameters;
  let group = workgroup + vec3u(p.originX, p.originY, p.originZ);
  let row = group.y * {{ROWS}}u;
  let column = group.x * {{COLUMNS}}u;
  let aStart = p.aStart + group.z * p.aBatch;
  let bStart = group.z * p.bBatch;
  let cStart = (p.cStart + group.z * p.cBatch) / 4u;
{{TERMS}}
{{BODY}}
}
