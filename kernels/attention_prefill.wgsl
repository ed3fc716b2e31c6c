struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  rows: u32, heads: u32, keyValueHeads: u32, scale: f32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 qkv {{TYPE}}}}
@group(0) @binding(2) var<storage, read_write> position: array<u32>;
{{storage 3 keys {{TYPE}}}}
{{storage 4 values {{TYPE}}}}
{{storage 5 y {{TYPE}}}}
{{SHARED}}
// Workgroup: {{BLOCK}} queries, numbered by row and, within one, by the heads that share a key/value head.
@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32{{LANE}}) {
  let p = parameters;
  let group = workgroup + vec3u(p.originX, p.originY, p.originZ);
  let groupSize = p.heads / p.keyValueHeads;
  let block = group.x * {{BLOCK}}u;
  let stride = p.keyValueHeads * {{VECTORS}}u;
  let keyAt = group.y * {{VECTORS}}u;
  let first = position[0];
  let last = first + min(p.rows - 1u, (block + {{BLOCK}}u - 1u) / groupSize);
{{BODY}}
}
