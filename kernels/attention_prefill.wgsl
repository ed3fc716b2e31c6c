struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  rows: u32, heads: u32, keyValueHeads: u32, scale: f32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{read 1 qkv}}
@group(0) @binding(2) var<storage, read_write> position: array<u32>;
{{read 3 keys}}
{{read 4 values}}
{{storage 5 y {{TYPE}}}}
{{SHARED}}
{{EXP2}}
// `max` with one comparison: the drivers' own treats NaN specially.
fn larger(a: f32, b: f32) -> f32 { return select(a, b, b > a); }
// Workgroup: {{OWN}} x {{THREADS}} queries from position `start` on, as in the forward kernel; rows of the caches are positions.
@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32{{LANE}}) {
  let p = parameters;
  let group = workgroup + vec3u(p.originX, p.originY, p.originZ);
  let start = position[0];
  let T = start + p.rows;
  let last = T - 1u;
  let groupSize = p.heads / p.keyValueHeads;
  let stride = (p.heads + 2u * p.keyValueHeads) * {{VECTORS}}u;
  let yStride = p.heads * {{VECTORS}}u;
  let cacheStride = p.keyValueHeads * {{VECTORS}}u;
  let keyColumn = group.y * {{VECTORS}}u;
  let first = 0u;
  let block = group.x * {{BLOCK}}u;
  let begin = 0u;
  let end = min(T, start + (block + {{BLOCK}}u - 1u) / groupSize + 1u);
{{BODY}}
}
