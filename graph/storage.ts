/**
 * How kernels reach tensors, whatever their element type: a kernel's text declares a binding by
 * `{{storage 1 x vec4f}}` (binding, name, type as the kernel sees it) and calls `load_x(i)` and `store_x(i, value)`.
 *
 * Halves lie in pairs in u32 and are unpacked to f32, so they need no feature of the device. bf16 is rounded to nearest even,
 * NaN stays NaN; what rounds to more than f16's 65,504 becomes infinite or NaN.
 * @module
 */

import { type DataType, type HalfType, isHalf } from "./tensor.ts";

const unpackPair: Readonly<Record<HalfType, string>> = {
  bf16: "fn unpackPair(h: u32) -> vec2f { return bitcast<vec2f>(vec2u(h << 16u, h & 0xffff0000u)); }",
  f16: "fn unpackPair(h: u32) -> vec2f { return unpack2x16float(h); }",
};

const packPair: Readonly<Record<HalfType, string>> = {
  bf16: `fn packPair(v: vec2f) -> u32 {
  let b = bitcast<vec2u>(v);
  let r = (b + 0x7fffu + ((b >> vec2u(16u)) & vec2u(1u))) >> vec2u(16u);
  let h = select(r, (b >> vec2u(16u)) | vec2u(0x40u), (b & vec2u(0x7fffffffu)) > vec2u(0x7f800000u));
  return h.x | (h.y << 16u);
}`,
  // What pack2x16float makes of numbers that are too large WGSL leaves open: steps are skipped by what is not finite.
  f16: `fn packPair(v: vec2f) -> u32 {
  let large = (bitcast<vec2u>(v) & vec2u(0x7fffffffu)) >= vec2u(0x477ff000u);
  return pack2x16float(v) | select(0u, 0x7c00u, large.x) | select(0u, 0x7c000000u, large.y);
}`,
};

/** Load and store of one binding of halves, by the type that the kernel sees. One element alone cannot be stored. */
function halfAccess(name: string, type: string, half: HalfType): { element: string; functions: string } {
  const [unpack, pack] = [`unpackPair_${half}`, `packPair_${half}`];
  switch (type) {
    case "vec4f":
      return {
        element: "vec2u",
        functions:
          `fn load_${name}(i: u32) -> vec4f { let h = ${name}[i]; return vec4f(${unpack}(h.x), ${unpack}(h.y)); }
fn store_${name}(i: u32, value: vec4f) { ${name}[i] = vec2u(${pack}(value.xy), ${pack}(value.zw)); }`,
      };
    case "vec2f":
      return {
        element: "u32",
        functions: `fn load_${name}(i: u32) -> vec2f { return ${unpack}(${name}[i]); }
fn store_${name}(i: u32, value: vec2f) { ${name}[i] = ${pack}(value); }`,
      };
    case "f32":
      return {
        element: "u32",
        functions: `fn load_${name}(i: u32) -> f32 {
  let v = ${unpack}(${name}[i >> 1u]);
  return select(v.x, v.y, (i & 1u) == 1u);
}`,
      };
  }
  throw new Error(`${name}: ${half} cannot be seen as ${type}`);
}

/**
 * Replaces each `{{storage n name type}}` of a text by the declaration of the binding and its `load_name` and `store_name`, and each
 * `{{image n name}}` (`Window.image`) by that and `load_name(column, row)`, which has a vector of four; behind the name, the
 * vectors of a row make it `load_name(i)`.
 *
 * @param types by binding (binding 1 first) the element type of the tensor bound; f32, u32 or i32 need not be told
 */
export function declareStorage(text: string, types: readonly (DataType | undefined)[]): string {
  const halves = new Set<HalfType>();
  const declared = new Set<number>();
  const code = text.replaceAll(
    /\{\{storage (\d+) (\w+) ([\w<>]+)\}\}/g,
    (_, binding: string, name: string, type: string) => {
      const dtype = types[Number(binding) - 1];
      declared.add(Number(binding));
      const half = dtype && isHalf(dtype) ? dtype : undefined;
      if (half) halves.add(half);
      const { element, functions } = half ? halfAccess(name, type, half) : {
        element: type,
        functions: `fn load_${name}(i: u32) -> ${type} { return ${name}[i]; }
fn store_${name}(i: u32, value: ${type}) { ${name}[i] = value; }`,
      };
      return `@group(0) @binding(${binding}) var<storage, read_write> ${name}: array<${element}>;\n${functions}`;
    },
  );
  const withImages = code.replaceAll(
    /\{\{image (\d+) (\w+)( \d+)?\}\}/g,
    (_, binding: string, name: string, width = "") => {
      const dtype = types[Number(binding) - 1];
      const half = dtype && isHalf(dtype) ? dtype : undefined;
      declared.add(Number(binding));
      if (half) halves.add(half);
      const unpack = `unpackPair_${half}`;
      const texel = `textureLoad(${name}, vec2u(${width ? `i %${width}u, i /${width}u` : "column, row"}))`;
      const value = half ? `let h = ${texel}; return vec4f(${unpack}(h.x), ${unpack}(h.y));` : `return ${texel};`;
      return `@group(0) @binding(${binding}) var ${name}: texture_storage_2d<${
        half ? "rg32uint" : "rgba32float"
      }, read>;
fn load_${name}(${width ? "i: u32" : "column: u32, row: u32"}) -> vec4f { ${value} }`;
    },
  );
  types.forEach((type, i) => {
    if (type && isHalf(type) && !declared.has(i + 1)) throw new Error(`Binding ${i + 1} is declared by hand`);
  });
  const conversions = [...halves].sort().flatMap((half) =>
    [unpackPair[half], packPair[half]].map((line) => line.replace(/(un)?packPair/, (word) => `${word}_${half}`))
  );
  return [withImages, ...conversions].join("\n");
}
