// 2^x by Cephes' exp2f, for x <= 126. Adding 1.5 · 2^23 leaves the whole number in the low bits: conversions to
// integers are checked, and slower.
fn powerOf2(x: {{TYPE}}) -> {{TYPE}} {
  let t = select(x, {{TYPE}}(-126.0), x < {{TYPE}}(-126.0));
  let f = t - round(t);
  var y = fma(f, {{TYPE}}(1.535336188319500e-4), {{TYPE}}(1.339887440266574e-3));
  y = fma(y, f, {{TYPE}}(9.618437357674640e-3));
  y = fma(y, f, {{TYPE}}(5.550332471162809e-2));
  y = fma(y, f, {{TYPE}}(2.402264791363012e-1));
  y = fma(y, f, {{TYPE}}(6.931472028550421e-1));
  y = fma(y, f, {{TYPE}}(1.0));
  return bitcast<{{TYPE}}>(bitcast<{{BITS}}>(y) + (bitcast<{{BITS}}>(t + 12582912.0) << {{BITS}}(23u)));
}
