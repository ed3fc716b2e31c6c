// (1 + tanh(u)) / 2 is sigmoid(2 u): exact to the last digits where it is small.
fn geluGate(x: {{TYPE}}) -> {{TYPE}} { return sigmoid(x * fma({{TYPE}}(0.07135481627260025), x * x, {{TYPE}}(1.5957691216057308))); }

fn gelu(x: {{TYPE}}) -> {{TYPE}} { return x * geluGate(x); }

// Beyond 10 the derivative is 0 or 1; the clamp keeps c * c * (1 - s) from becoming infinity times zero.
fn geluSlope(x: {{TYPE}}) -> {{TYPE}} {
  let c = clamp(x, {{TYPE}}(-10.0), {{TYPE}}(10.0));
  let s = geluGate(c);
  let slope = fma({{TYPE}}(0.21406444881780074), c * c, {{TYPE}}(1.5957691216057308));
  return fma(c * slope, s * (1.0 - s), s);
}
