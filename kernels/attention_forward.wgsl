struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  sequenceLength: u32, heads: u32, keyValueHeads: u32, scale: f32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{read 1 qkv}}
{{storage 2 y {{TYPE}}}}
{{storage 3 logSumExp f32}}
{{SHARED}}
{{EXP2}}
// `max` with one comparison: the drivers' own treats NaN specially.
fn larger(a: f32, b: f32) -> f32 { return select(a, b, b > a); }
// Workgroup: {{OWN}} x {{THREADS}} queries, numbered by position and, within one, by the heads that share a key/value head.
@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32{{LANE}}) {
  let p = parameters;
  let group = workgroup + vec3u(p.originX, p.originY, p.originZ);
  let T = p.sequenceLength;
  let last = T - 1u;
  let groupSize = p.heads / p.keyValueHeads;
  let stride = (p.heads + 2u * p.keyValueHeads) * {{VECTORS}}u;
  let yStride = p.heads * {{VECTORS}}u;
  let keyColumn = (p.heads + group.y) * {{VECTORS}}u;
  let valueColumn = keyColumn + p.keyValueHeads * {{VECTORS}}u;
  let first = group.z * T;
  let block = group.x * {{BLOCK}}u;
  let begin = 0u;
  let end = min(T, (block + {{BLOCK}}u - 1u) / groupSize + 1u);
{{BODY}}
}
