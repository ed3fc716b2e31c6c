struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  count: u32, heads: u32, rotated: u32, half: u32, sequenceLength: u32, firstRow: u32, hasStart: u32, sign: f32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> x: array<{{TYPE}}>;
@group(0) @binding(2) var<storage, read_write> cosines: array<{{TYPE}}>;
@group(0) @binding(3) var<storage, read_write> sines: array<{{TYPE}}>;
@group(0) @binding(4) var<storage, read_write> start: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<{{TYPE}}>;

// Thread: a vector of the first half of a head with its partner in the second half. `half` counts vectors. Heads from
// `rotated` on (the values) are copied.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let index = (workgroup.x + p.originX) * 64u + local;
  if (index >= p.count) { return; }
  let i = index % p.half;
  let headOfRow = index / p.half;
  let row = headOfRow / p.heads;
  let head = headOfRow % p.heads;
  let first = headOfRow * 2u * p.half + i;
  let second = first + p.half;
  let a = x[first];
  let b = x[second];
  if (head >= p.rotated) {
    y[first] = a;
    y[second] = b;
    return;
  }
  var position = (p.firstRow + row) % p.sequenceLength;
  if (p.hasStart != 0u) { position += start[0]; }
  let c = cosines[position * p.half + i];
  let s = sines[position * p.half + i] * p.sign;
  y[first] = a * c - b * s;
  y[second] = b * c + a * s;
}
