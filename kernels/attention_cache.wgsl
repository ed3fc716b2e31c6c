struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  queries: u32, width: u32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 qkv {{TYPE}}}}
@group(0) @binding(2) var<storage, read_write> position: array<u32>;
{{storage 3 keys {{TYPE}}}}
{{storage 4 values {{TYPE}}}}

// Thread: a vector of the keys and of the values of one row.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let i = (workgroup.x + p.originX) * 64u + local;
  let row = workgroup.y + p.originY;
  if (i >= p.width) { return; }
  let keyAt = row * (p.queries + 2u * p.width) + p.queries + i;
  let to = (position[0] + row) * p.width + i;
  store_keys(to, load_qkv(keyAt));
  store_values(to, load_qkv(keyAt + p.width));
}
