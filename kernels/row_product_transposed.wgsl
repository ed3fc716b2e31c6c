struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  vectors: u32, steps: u32, firstVector: u32, bias: u32, addend: u32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 x vec4f}}
{{storage 2 w vec4f}}
{{storage 3 bias vec4f}}
{{storage 4 addend vec4f}}
{{storage 5 y vec4f}}
{{SHARED}}
// Four rows of w, a vector of the result, have {{LANES}} threads; each takes every {{LANES}}th vector of these rows.
@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let lane = local % {{LANES}}u;
  let vector = (workgroup.x + p.originX) * {{VECTORS}}u + local / {{LANES}}u;
  let at = min(vector, p.vectors - 1u) * 4u * p.steps;
  var s0 = vec4f(0.0);
  var s1 = vec4f(0.0);
  var s2 = vec4f(0.0);
  var s3 = vec4f(0.0);
  for (var k = lane; k < p.steps; k += {{LANES}}u) {
    let v = load_x(k);
    s0 = fma(v, load_w(at + k), s0);
    s1 = fma(v, load_w(at + p.steps + k), s1);
    s2 = fma(v, load_w(at + 2u * p.steps + k), s2);
    s3 = fma(v, load_w(at + 3u * p.steps + k), s3);
  }
  let ones = vec4f(1.0);
  var sum = vec4f(dot(s0, ones), dot(s1, ones), dot(s2, ones), dot(s3, ones));
  {{REDUCE}}
  if (lane != 0u || vector >= p.vectors) { return; }
  let i = p.firstVector + vector;
  if (p.bias != 0u) { sum += load_bias(i); }
  if (p.addend != 0u) { sum += load_addend(i); }
  store_y(i, sum);
}
