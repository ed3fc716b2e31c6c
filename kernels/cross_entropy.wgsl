{{PRELUDE}}
struct Parameters { originX: u32, originY: u32, originZ: u32, rows: u32, values: u32, vocabulary: u32, firstToken: u32 }
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 logits {{TYPE}}}}
@group(0) @binding(2) var<storage, read_write> targets: array<i32>;
@group(0) @binding(3) var<storage, read_write> rowLoss: array<f32>;
@group(0) @binding(4) var<storage, read_write> statistics: array<{{STATISTICS}}>;

// Values that are taken together: one rescaling of the sum for all, and few terms in it, since sums of 50,000 lose digits.
const GROUP = 8u * LANES;

@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let row = (workgroup.x + p.originX) * ROWS + local / LANES;
  let lane = local % LANES;
  if (row >= p.rows) { return; }
  let start = row * p.values;
  // Each component has a maximum and a sum of its own, so the row is read once.
  var top = Value(-1e30);
  var sum = Value(0.0);
  let whole = p.vocabulary / (WIDTH * GROUP) * GROUP;
  for (var i = start + lane; i < start + whole; i += GROUP) {
{{LOADS}}
    let m = max(top, max(max(max(v0, v1), max(v2, v3)), max(max(v4, v5), max(v6, v7))));
    sum = sum * exp(top - m) + (((exp(v0 - m) + exp(v1 - m)) + (exp(v2 - m) + exp(v3 - m))) +
      ((exp(v4 - m) + exp(v5 - m)) + (exp(v6 - m) + exp(v7 - m))));
    top = m;
  }
  for (var i = whole + lane; i < p.values; i += LANES) {
    var v = load_logits(start + i);
    // Those beyond the vocabulary are so low that they vanish.
    if ((i + 1u) * WIDTH > p.vocabulary) {
      let column = i * WIDTH;
{{MASK}}
    }
    let m = max(top, v);
    sum = sum * exp(top - m) + exp(v - m);
    top = m;
  }
  let m = maxOver(largest(top), lane);
  let z = sumOver(total(sum * exp(top - m)), lane);
  if (lane == 0u) {
{{STORE}}
  }
}
