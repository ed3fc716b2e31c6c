struct Parameters { originX: u32, originY: u32, originZ: u32, count: u32, decayed: u32 }
@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> weights: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> gradients: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> firstMoment: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> secondMoment: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> hyper: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> sumOfSquares: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = (workgroup.x + parameters.originX) * 64u + local;
  let squares = sumOfSquares[0];
  // By bits: comparisons and arithmetic on NaN and infinity may be optimized away. Nothing is changed then.
  let finite = (bitcast<u32>(squares) & 0x7f800000u) != 0x7f800000u;
  if (i >= parameters.count || !finite) { return; }
  // (learningRate, beta1, beta2, epsilon), (weightDecay, 1/(1-beta1^t), 1/sqrt(1-beta2^t), clip), (1-beta1, 1-beta2)
  let h0 = hyper[0];
  let h1 = hyper[1];
  let h2 = hyper[2];
  var scale = 1.0;
  if (h1.w > 0.0) { scale = min(1.0, h1.w / (sqrt(squares) + 1e-6)); }
  let g = gradients[i] * scale;
  let m = h0.y * firstMoment[i] + h2.x * g;
  let v = h0.z * secondMoment[i] + h2.y * g * g;
  var w = weights[i];
  if (i < parameters.decayed) { w *= 1.0 - h0.x * h1.x; }
  weights[i] = w - h0.x * h1.y * (m / (sqrt(v) * h1.z + h0.w));
  firstMoment[i] = m;
  secondMoment[i] = v;
  gradients[i] = vec4f(0.0);
}
