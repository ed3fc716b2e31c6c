struct Parameters {
  originX: u32, originY: u32, originZ: u32,
  M: u32, N: u32, ldc: u32, cStart: u32, biasStart: u32,
  parts: u32, rows: u32,
}
@group(0) @binding(0) var<uniform> parameters: Parameters;
{{storage 1 partial {{TYPE}}}}
{{EPILOGUE}}

// Thread: one element of C, or behind these of the sums of B's columns. Four parts are fetched at a time.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
  let p = parameters;
  let columns = p.N / {{WIDTH}}u;
  let size = p.rows * columns;
  let i = (workgroup.x + p.originX) * 64u + local;
  if (i >= size) { return; }
  var sum = {{TYPE}}(0.0);
  for (var part = 0u; part < p.parts; part += 4u) {
{{ADD}}
  }
  let row = i / columns;
  let column = i % columns;
{{FINISH}}
}
