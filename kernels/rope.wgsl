struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  count: u32, rotated: u32, heads: u32, half: u32, sequenceLength: u32, firstRow: u32, hasStart: u32, sign: f32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 x {{TYPE}}}}
{{storage 2 cosines {{TYPE}}}}
{{storage 3 sines {{TYPE}}}}
{{storage 4 start u32}}

// Thread: a vector of the first half of a head with its partner in the second half, in one of the `rotated` heads (queries
// and keys) of a row of `heads`. `half` counts vectors.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let index = (workgroup.x + p.originX) * 64u + local;
  if (index >= p.count) { return; }
  let i = index % p.half;
  let headOfRow = index / p.half;
  let row = headOfRow / p.rotated;
  let first = (row * p.heads + headOfRow % p.rotated) * 2u * p.half + i;
  let second = first + p.half;
  let a = load_x(first);
  let b = load_x(second);
  var position = (p.firstRow + row) % p.sequenceLength;
  if (p.hasStart != 0u) { position += load_start(0u); }
  let c = load_cosines(position * p.half + i);
  let s = load_sines(position * p.half + i) * p.sign;
  store_x(first, a * c - b * s);
  store_x(second, b * c + a * s);
}
