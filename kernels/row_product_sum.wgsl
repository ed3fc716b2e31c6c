struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  vectors: u32, slabs: u32, bias: u32, addend: u32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 partial vec4f}}
{{storage 2 bias vec4f}}
{{storage 3 addend vec4f}}
{{storage 4 y vec4f}}

// Thread: a vector of the result.
@compute @workgroup_size(16)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let i = (workgroup.x + p.originX) * 16u + local;
  if (i >= p.vectors) { return; }
  var sum = vec4f(0.0);
  for (var slab = 0u; slab < p.slabs; slab += 1u) { sum += load_partial(slab * p.vectors + i); }
  if (p.bias != 0u) { sum += load_bias(i); }
  if (p.addend != 0u) { sum += load_addend(i); }
  store_y(i, sum);
}
