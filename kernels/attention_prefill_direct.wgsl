  let n = block + local;
  if (n >= p.rows * groupSize) { return; }
  let head = group.y * groupSize + n % groupSize;
  let queryAt = (n / groupSize * (p.heads + 2u * p.keyValueHeads) + head) * {{VECTORS}}u;
  var acc: array<{{TYPE}}, {{VECTORS}}>;
  for (var i = 0u; i < {{VECTORS}}u; i += 1u) { acc[i] = {{TYPE}}(0.0); }
  var m = -1e30;
  var sum = 0.0;
  for (var j = 0u; j <= first + n / groupSize; j += 1u) {
    var x = {{TYPE}}(0.0);
    for (var i = 0u; i < {{VECTORS}}u; i += 1u) { x += load_qkv(queryAt + i) * load_keys(keyAt + j * stride + i); }
    let s = {{TOTAL}} * p.scale;
    let t = max(m, s);
    let c = exp(m - t);
    let w = exp(s - t);
    sum = sum * c + w;
    m = t;
    for (var i = 0u; i < {{VECTORS}}u; i += 1u) { acc[i] = acc[i] * c + w * load_values(keyAt + j * stride + i); }
  }
  let yAt = (n / groupSize * p.heads + head) * {{VECTORS}}u;
  for (var i = 0u; i < {{VECTORS}}u; i += 1u) { store_y(yAt + i, acc[i] / sum); }
