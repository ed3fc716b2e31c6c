struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  values: u32, firstRow: u32, site: u32, threshold: u32, scale: f32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 x vec4f}}
@group(0) @binding(2) var<storage, read_write> state: array<u32>;
{{storage 3 y vec4f}}

fn rotate(x: u32, bits: u32) -> u32 { return (x << bits) | (x >> (32u - bits)); }

// Threefry-2x32, 20 rounds; graph/random.ts has the same.
fn threefry(key: vec2u, counter: vec2u) -> vec2u {
  let k2 = 0x1bd11bdau ^ key.x ^ key.y;
  var x = counter.x + key.x;
  var y = counter.y + key.y;
{{ROUNDS}}
  return vec2u(x, y);
}

// Thread: four neighbours in a row; each draw gives two words.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let column = (workgroup.x + p.originX) * 64u + local;
  let row = workgroup.y + p.originY;
  if (column >= p.values) { return; }
  let key = threefry(vec2u(state[0], state[1]), vec2u(p.site, 0x64726f70u));
  let globalRow = state[2] + p.firstRow + row;
  let a = threefry(key, vec2u(globalRow, 2u * column));
  let b = threefry(key, vec2u(globalRow, 2u * column + 1u));
  let keep = vec4u(a, b) >= vec4u(p.threshold);
  let i = row * p.values + column;
  store_y(i, select(vec4f(0.0), load_x(i) * p.scale, keep));
}
