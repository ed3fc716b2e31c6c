{{PRELUDE}}
struct Parameters { originX: u32, originY: u32, originZ: u32, rows: u32, values: u32, vocabulary: u32, firstToken: u32 }
@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> logits: array<Value>;
@group(0) @binding(2) var<storage, read_write> targets: array<i32>;
@group(0) @binding(3) var<storage, read_write> rowLoss: array<f32>;
@group(0) @binding(4) var<storage, read_write> statistics: array<{{STATISTICS}}>;

// Values per inner sum: sums of 50,000 exponentials lose digits in one accumulator.
const BLOCK = 64u * LANES;

// A vector of logits, with those beyond the vocabulary so low that they vanish.
fn logitsAt(start: u32, i: u32, vocabulary: u32) -> Value {
  var v = logits[start + i];
  if ((i + 1u) * WIDTH > vocabulary) {
    let column = i * WIDTH;
{{MASK}}
  }
  return v;
}

@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let row = (workgroup.x + p.originX) * ROWS + local / LANES;
  let lane = local % LANES;
  if (row >= p.rows) { return; }
  let start = row * p.values;
  var top = Value(-1e30);
  for (var i = lane; i < p.values; i += LANES) { top = max(top, logitsAt(start, i, p.vocabulary)); }
  let m = maxOver(largest(top), lane);
  var sum = Value(0.0);
  for (var block = 0u; block < p.values; block += BLOCK) {
    var part = Value(0.0);
    for (var i = block + lane; i < min(block + BLOCK, p.values); i += LANES) {
      part += exp(logitsAt(start, i, p.vocabulary) - m);
    }
    sum += part;
  }
  let z = sumOver(total(sum), lane);
  if (lane == 0u) {
{{STORE}}
  }
}
