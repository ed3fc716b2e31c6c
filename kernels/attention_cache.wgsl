struct Parameters { originX: u32, originY: u32, originZ: u32, queries: u32, width: u32 }
@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> qkv: array<f32>;
@group(0) @binding(2) var<storage, read_write> position: array<u32>;
@group(0) @binding(3) var<storage, read_write> keys: array<f32>;
@group(0) @binding(4) var<storage, read_write> values: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let i = (workgroup.x + p.originX) * 64u + local;
  if (i >= p.width) { return; }
  keys[position[0] * p.width + i] = qkv[p.queries + i];
  values[position[0] * p.width + i] = qkv[p.queries + p.width + i];
}
