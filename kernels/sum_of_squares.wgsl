struct Parameters {
  originX: u32, originY: u32, originZ: u32, firstPartial: u32,
{{EACH}}
  vectors#: u32, firstGroup#: u32, groups#: u32,
{{END}}
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{TENSORS}}
const LANES = {{LANES}}u;
{{REDUCTIONS}}

// Workgroup: the next vectors of one of the tensors. Branches that are not taken cost as much as those that are on
// software drivers, loops of no turns do not.
@compute @workgroup_size({{LANES}})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
  let p = parameters;
  let group = workgroup.x + p.originX;
  var sum = vec4f(0.0);
{{EACH}}
  let group# = group - p.firstGroup#;
  let end# = select(0u, min((group# + 1u) * {{VECTORS}}u, p.vectors#), group# < p.groups#);
  for (var i = group# * {{VECTORS}}u + lane; i < end#; i += 4u * LANES) {
    let a = load_x#(i);
    let b = select(vec4f(0.0), load_x#(i + LANES), i + LANES < end#);
    let c = select(vec4f(0.0), load_x#(i + 2u * LANES), i + 2u * LANES < end#);
    let d = select(vec4f(0.0), load_x#(i + 3u * LANES), i + 3u * LANES < end#);
    sum += (a * a + b * b) + (c * c + d * d);
  }
{{END}}
  let total = sumOver((sum.x + sum.y) + (sum.z + sum.w), lane);
  if (lane == 0u) { store_partials(p.firstPartial + group, total); }
}
