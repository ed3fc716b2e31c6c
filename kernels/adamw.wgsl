struct Parameters { originX: u32, originY: u32, originZ: u32, count: u32, decayed: u32 }
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 hyper vec4f}}
{{storage 2 sumOfSquares f32}}
{{storage 3 weights vec4f}}
{{storage 4 gradients vec4f}}
{{storage 5 firstMoment vec4f}}
{{storage 6 secondMoment vec4f}}
[copy]{{storage 7 copy vec4f}}

@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let first = (workgroup.x + parameters.originX) * {{VECTORS}}u;
  let end = min(first + {{VECTORS}}u, parameters.count);
  let squares = load_sumOfSquares(0u);
  // By bits: comparisons and arithmetic on NaN and infinity may be optimized away.
  if ((bitcast<u32>(squares) & 0x7f800000u) == 0x7f800000u) {
[copy]    // What shards send on lives only for this step: it holds nothing yet.
[copy]    for (var i = first + local; i < end; i += {{THREADS}}u) { store_copy(i, load_weights(i)); }
    return;
  }
  // (learningRate, beta1, beta2, epsilon), (weightDecay, 1/(1-beta1^t), 1/sqrt(1-beta2^t), clip), (1-beta1, 1-beta2, gradientScale)
  let h0 = load_hyper(0u);
  let h1 = load_hyper(1u);
  let h2 = load_hyper(2u);
  var scale = h2.z;
  if (h1.w > 0.0) { scale *= min(1.0, h1.w / (sqrt(squares) * h2.z + 1e-6)); }
  for (var i = first + local; i < end; i += {{THREADS}}u) {
    let g = load_gradients(i) * scale;
    let m = h0.y * load_firstMoment(i) + h2.x * g;
    let v = h0.z * load_secondMoment(i) + h2.y * g * g;
    var w = load_weights(i);
    if (i < parameters.decayed) { w *= 1.0 - h0.x * h1.x; }
    w -= h0.x * h1.y * (m / (sqrt(v) * h1.z + h0.w));
    store_weights(i, w);
[copy]    store_copy(i, w);
    store_firstMoment(i, m);
    store_secondMoment(i, v);
  }
}
