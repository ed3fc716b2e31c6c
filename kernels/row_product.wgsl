struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  vectors: u32, columns: u32, firstRow: u32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 x f32}}
{{storage 2 w vec4f}}
{{storage 3 partial vec4f}}

// Workgroup: {{SLAB}} rows of w, {{THREADS}} x `columns` vectors of each. Memory is read in {{SLAB}} streams, as fast as it comes.
@compute @workgroup_size({{THREADS}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let slab = workgroup.y + p.originY;
  let first = slab * {{SLAB}}u;
  let begin = (workgroup.x + p.originX) * p.columns * {{THREADS}}u + local;
  {{FACTORS}}
  for (var i = begin; i < min(p.vectors, begin + p.columns * {{THREADS}}u); i += {{THREADS}}u) {
    let at = first * p.vectors + i;
    var sum = vec4f(0.0);
    {{SUMS}}
    store_partial((p.firstRow / {{SLAB}}u + slab) * p.vectors + i, sum);
  }
}
