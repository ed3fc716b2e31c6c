struct Parameters { originX: u32, originY: u32, originZ: u32, values: u32, vocabulary: u32, firstToken: u32 }
@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> targets: array<i32>;
@group(0) @binding(2) var<storage, read_write> statistics: array<vec2f>;
@group(0) @binding(3) var<storage, read_write> upstream: array<f32>;
{{storage 4 logits {{TYPE}}}}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let i = (workgroup.x + p.originX) * 64u + local;
  let row = workgroup.y + p.originY;
  if (i >= p.values) { return; }
  let index = row * p.values + i;
  let target_ = targets[row];
  var d = {{TYPE}}(0.0);
  if (target_ >= 0) {
    // Not exp(x - log Σ): the sum of a large maximum and a small logarithm loses digits.
    let s = statistics[row];
    d = exp(load_logits(index) - s.x) * s.y;
    let column = i * {{WIDTH}}u;
    let hit = u32(target_) - p.firstToken;
{{ADJUST}}
    d *= upstream[0];
  }
  store_logits(index, d);
}
