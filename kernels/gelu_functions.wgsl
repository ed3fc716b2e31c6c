// (1 + tanh(u)) / 2 is sigmoid(2 u): exact to the last digits where it is small, and exp costs less than tanh. exp stays finite.
fn geluGate(x: {{TYPE}}) -> {{TYPE}} {
  let u = 1.5957691216057308 * (x + 0.044715 * x * x * x);
  return 1.0 / (1.0 + exp(clamp(-u, {{TYPE}}(-80.0), {{TYPE}}(80.0))));
}

fn gelu(x: {{TYPE}}) -> {{TYPE}} { return x * geluGate(x); }

// Beyond 10 the derivative is 0 or 1; the clamp keeps c * c * (1 - s) from becoming infinity times zero.
fn geluSlope(x: {{TYPE}}) -> {{TYPE}} {
  let c = clamp(x, {{TYPE}}(-10.0), {{TYPE}}(10.0));
  let s = geluGate(c);
  let slope = 1.5957691216057308 * (1.0 + 3.0 * 0.044715 * c * c);
  return s + c * s * (1.0 - s) * slope;
}
