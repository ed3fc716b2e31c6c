struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  sequenceLength: u32, heads: u32, keyValueHeads: u32, scale: f32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{read 1 qkv}}
{{read 2 dy}}
{{storage 3 logSumExp f32}}
{{storage 4 delta f32}}
{{storage 5 dqkv {{TYPE}}}}
{{read 6 y}}
{{SHARED}}
{{EXP2}}
// Workgroup: {{OWN}} x {{THREADS}} queries, as in the forward kernel. Also stores each query's delta, y · dy.
@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32{{LANE}}) {
  let p = parameters;
  let group = workgroup + vec3u(p.originX, p.originY, p.originZ);
  let T = p.sequenceLength;
  let last = T - 1u;
  let one = f32(min(T, 1u));
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
