struct Parameters { originX: u32, originY: u32, originZ: u32, rows: u32, values: u32, vocabulary: u32, firstToken: u32 }
@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> targets: array<i32>;
@group(0) @binding(2) var<storage, read_write> statistics: array<vec2f>;
@group(0) @binding(3) var<storage, read_write> upstream: array<f32>;
{{storage 4 logits {{TYPE}}}}

@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let first = (workgroup.x + p.originX) * {{VALUES}}u;
  let end = min(first + {{VALUES}}u, p.values);
  let firstRow = (workgroup.y + p.originY) * {{ROWS}}u;
  let scale = upstream[0];
  for (var row = firstRow; row < min(firstRow + {{ROWS}}u, p.rows); row += 1u) {
    let target_ = targets[row];
    // Not exp(x - log Σ): the sum of a large maximum and a small logarithm loses digits.
    let s = statistics[row];
    let hit = u32(target_) - p.firstToken;
    for (var i = first + local; i < end; i += {{THREADS}}u) {
      let index = row * p.values + i;
      var d = exp(load_logits(index) - s.x) * s.y;
      let column = i * {{WIDTH}}u;
{{ADJUST}}
      store_logits(index, select({{TYPE}}(0.0), d * scale, target_ >= 0));
    }
  }
}
