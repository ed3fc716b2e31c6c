/**
 * Counter-based random numbers: Threefry-2x32 with 20 rounds (Salmon et al., "Parallel Random Numbers: As Easy as
 * 1, 2, 3", SC 2011). A number is a function of a key and a position alone, so weights and dropout masks do not depend
 * on which device computes them or when. `kernels/dropout.wgsl` has the same generator.
 * @module
 */

const rotations = [13, 15, 26, 6, 17, 29, 16, 24];
const pair = new Uint32Array(2);

/** Two random words for a key and a counter of two words each. The array returned is overwritten by the next call. */
export function threefry2x32(key0: number, key1: number, counter0: number, counter1: number): Uint32Array {
  const keys = [key0 | 0, key1 | 0, 0x1bd11bda ^ key0 ^ key1];
  let x0 = (counter0 + keys[0]) | 0;
  let x1 = (counter1 + keys[1]) | 0;
  for (let group = 0; group < 5; group++) {
    for (let i = 0; i < 4; i++) {
      const rotation = rotations[(group & 1) * 4 + i];
      x0 = (x0 + x1) | 0;
      x1 = ((x1 << rotation) | (x1 >>> (32 - rotation))) ^ x0;
    }
    x0 = (x0 + keys[(group + 1) % 3]) | 0;
    x1 = (x1 + keys[(group + 2) % 3] + group + 1) | 0;
  }
  pair[0] = x0;
  pair[1] = x1;
  return pair;
}

/** A 32-bit key of a name (FNV-1a over its UTF-16 code units, finished by MurmurHash3's mixer). */
export function hashName(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/**
 * Fills `target` with normal numbers of mean 0 (Box-Muller). Element i is a function of `seed`, `name` and
 * `firstIndex + i`.
 */
export function fillNormal(
  target: Float32Array,
  name: string,
  seed: number,
  firstIndex: number,
  standardDeviation: number,
): void {
  const key = hashName(name);
  // A draw gives two neighbours; the first of the target may be a second one.
  for (let i = -(firstIndex % 2); i < target.length; i += 2) {
    const counter = (firstIndex + i) / 2;
    const [a, b] = threefry2x32(seed, key, counter % 2 ** 32, Math.floor(counter / 2 ** 32));
    const radius = standardDeviation * Math.sqrt(-2 * Math.log((a + 0.5) / 2 ** 32));
    const angle = 2 * Math.PI * b / 2 ** 32;
    if (i >= 0) target[i] = radius * Math.cos(angle);
    if (i + 1 < target.length) target[i + 1] = radius * Math.sin(angle);
  }
}
