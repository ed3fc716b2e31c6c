// Beyond 2^126 the quotient is 0 or 1 to the last bit that matters.
fn sigmoid(x: {{TYPE}}) -> {{TYPE}} {
  return 1.0 / (1.0 + powerOf2(min(-1.4426950408889634 * x, {{TYPE}}(126.0))));
}
