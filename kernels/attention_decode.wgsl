struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  heads: u32, keyValueHeads: u32, headSize: u32, scale: f32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 qkv f32}}
@group(0) @binding(2) var<storage, read_write> position: array<u32>;
{{storage 3 keys f32}}
{{storage 4 values f32}}
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
var<workgroup> tops: array<f32, 64>;
var<workgroup> sums: array<f32, 64>;
var<workgroup> weights: array<f32, 64>;

// Workgroup: one head. Keys are taken 64 at a time; thread i also has columns i, i + 64, … of the result.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let head = workgroup.x + p.originX;
  let keyValueHead = head / (p.heads / p.keyValueHeads);
  let width = p.keyValueHeads * p.headSize;
  let queryAt = head * p.headSize;
  let count = position[0] + 1u;
  var m = -1e30;
  var sum = 0.0;
  var a0 = 0.0;
  var a1 = 0.0;
  var a2 = 0.0;
  var a3 = 0.0;
  for (var block = 0u; block < count; block += 64u) {
    let j = block + local;
    var s = -1e30;
    if (j < count) {
      var dotProduct = 0.0;
      let keyAt = j * width + keyValueHead * p.headSize;
      for (var i = 0u; i < p.headSize; i += 1u) { dotProduct += load_qkv(queryAt + i) * load_keys(keyAt + i); }
      s = dotProduct * p.scale;
    }
    tops[local] = s;
    workgroupBarrier();
    for (var stride = 32u; stride > 0u; stride >>= 1u) {
      if (local < stride) { tops[local] = max(tops[local], tops[local + stride]); }
      workgroupBarrier();
    }
    let mn = max(m, tops[0]);
    let c = exp(m - mn);
    let w = exp(s - mn);
    weights[local] = w;
    sums[local] = w;
    workgroupBarrier();
    for (var stride = 32u; stride > 0u; stride >>= 1u) {
      if (local < stride) { sums[local] += sums[local + stride]; }
      workgroupBarrier();
    }
    sum = sum * c + sums[0];
    m = mn;
    a0 *= c;
    a1 *= c;
    a2 *= c;
    a3 *= c;
    let end = min(64u, count - block);
    for (var k = 0u; k < end; k += 1u) {
      let valueAt = (block + k) * width + keyValueHead * p.headSize + local;
      let weight = weights[k];
      if (local < p.headSize) { a0 += weight * load_values(valueAt); }
      if (local + 64u < p.headSize) { a1 += weight * load_values(valueAt + 64u); }
      if (local + 128u < p.headSize) { a2 += weight * load_values(valueAt + 128u); }
      if (local + 192u < p.headSize) { a3 += weight * load_values(valueAt + 192u); }
    }
    workgroupBarrier();
  }
  if (local < p.headSize) { y[queryAt + local] = a0 / sum; }
  if (local + 64u < p.headSize) { y[queryAt + local + 64u] = a1 / sum; }
  if (local + 128u < p.headSize) { y[queryAt + local + 128u] = a2 / sum; }
  if (local + 192u < p.headSize) { y[queryAt + local + 192u] = a3 / sum; }
}
