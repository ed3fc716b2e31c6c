/**
 * Numbers in fewer bytes, in WebAssembly with vectors: f16, bf16 and int8, each to the nearest, ties to even, in blocks of
 * 256 elements.
 *
 * - `int8`: an f32 scale, the block's largest magnitude / 127, and 256 integers. What is lost is told, so that it can be
 *   added the next time (error feedback: Seide et al., "1-bit stochastic gradient descent", 2014).
 * - `f16`: an f32 scale, the power of two that puts the largest magnitude into 2^14 … 2^15, and 256 f16: neither do large
 *   numbers overflow nor small ones underflow, down to 2^-39 of the block's largest.
 * - `bf16`: 256 bf16, without a scale.
 *
 * Infinity and NaN stay not finite; in `int8` and `f16` all of their block becomes NaN.
 * @module
 */

/** How numbers travel. */
export type Compression = "f16" | "bf16" | "int8";

/** Elements of a block; the last one of some numbers is filled up with zeros. */
export const blockLength = 256;

/** What is fixed for a format. */
export interface Format {
  /** Bytes of an encoded block. */
  readonly blockBytes: number;
  /** True if encoding takes and gives back what rounding loses. */
  readonly feedback: boolean;
}

/** All formats. */
export const formats: Readonly<Record<Compression, Format>> = {
  f16: { blockBytes: 4 + 2 * blockLength, feedback: false },
  bf16: { blockBytes: 2 * blockLength, feedback: false },
  int8: { blockBytes: 4 + blockLength, feedback: true },
};

/** `gradient_codecs.wat`, assembled: `wat2wasm gradient_codecs.wat`, in base64. */
const assembled =
  "AGFzbQEAAAABGARgAXsBf2AEf39/fwBgA39/fwBgAXsBewIRAQVjb2RlYwZtZW1vcnkCAAEDCwoAAQIDAwECAwECB0oGC2ludDhfZW5jb2RlAAEIaW50" +
  "OF9hZGQAAgpmMTZfZW5jb2RlAAUHZjE2X2FkZAAGC2JmMTZfZW5jb2RlAAgIYmYxNl9hZGQACQq4EApBACAAIAAgAP0NCAkKCwwNDg8AAQIDBAUGB/24" +
  "ASEAIAAgACAA/Q0EBQYHAAECAwwNDg8ICQoL/bgBIQAgAP0bAAuZBgMCfwF9C3sCQANAIANFDQH9DAAAAAAAAAAAAAAAAAAAAAAhByABQYAIaiEEA0Ag" +
  "AP0ABAAgAf0ABAD95AEhCiAA/QAEECAB/QAEEP3kASELIAEgCv0LBAAgASAL/QsEECAK/Qz///9/////f////3////9//U4hCiAL/Qz///9/////f///" +
  "/3////9//U4hCyAHIAogC/24Af24ASEHIABBIGohACABQSBqIQEgASAESQ0ACyABQYAIayEBIAcQACEFIAVBgICA+AdPBEAgAkMAAMB/OAIAIAJBBGpB" +
  "AEGAAvwLACABQQBBgAj8CwAgBCEBBSAFQYCAgOwASQRAQwAAAAAhBkMAAAAA/RMhCQUgBb5DAAD+QpUhBkMAAP5CIAW+lf0TIQkLIAIgBjgCACAG/RMh" +
  "CANAIAH9AAQAIQogAf0ABBAhCyAB/QAEICEMIAH9AAQwIQ0gCiAJ/eYB/QwAAEBLAABASwAAQEsAAEBL/eQBIQ4gCyAJ/eYB/QwAAEBLAABASwAAQEsA" +
  "AEBL/eQBIQ8gDCAJ/eYB/QwAAEBLAABASwAAQEsAAEBL/eQBIRAgDSAJ/eYB/QwAAEBLAABASwAAQEsAAEBL/eQBIREgAiAO/QwAAEBLAABASwAAQEsA" +
  "AEBL/bEBIA/9DAAAQEsAAEBLAABASwAAQEv9sQH9hQEgEP0MAABASwAAQEsAAEBLAABAS/2xASAR/QwAAEBLAABASwAAQEsAAEBL/bEB/YUB/WX9CwQE" +
  "IA79DAAAQEsAAEBLAABASwAAQEv95QEhDiAP/QwAAEBLAABASwAAQEsAAEBL/eUBIQ8gEP0MAABASwAAQEsAAEBLAABAS/3lASEQIBH9DAAAQEsAAEBL" +
  "AABASwAAQEv95QEhESABIAogDiAI/eYB/eUB/QsEACABIAsgDyAI/eYB/eUB/QsEECABIAwgECAI/eYB/eUB/QsEICABIA0gESAI/eYB/eUB/QsEMCAC" +
  "QRBqIQIgAUHAAGohASABIARJDQALIAJBgAJrIQILIAJBhAJqIQIgA0EBayEDDAALCwvQAQIBfwR7AkADQCACRQ0BIAD9CQIAIQQgAUGACGohAwNAIAD9" +
  "AAQEIQUgBf2HASEGIAX9iAEhByABIAH9AAQAIAb9pwH9+gEgBP3mAf3kAf0LBAAgASAB/QAEECAG/agB/foBIAT95gH95AH9CwQQIAEgAf0ABCAgB/2n" +
  "Af36ASAE/eYB/eQB/QsEICABIAH9AAQwIAf9qAH9+gEgBP3mAf3kAf0LBDAgAEEQaiEAIAFBwABqIQEgASADSQ0ACyAAQQRqIQAgAkEBayECDAALCwur" +
  "AQEBeyAA/QwAAACAAAAAgAAAAIAAAACA/U4hASAAIAH9USEAIAFBEP2tASAA/QwAAAA/AAAAPwAAAD8AAAA//eQB/QwAAAA/AAAAPwAAAD8AAAA//bEB" +
  "IAD9DP8PAMj/DwDI/w8AyP8PAMj9rgEgAEEN/a0B/QwBAAAAAQAAAAEAAAABAAAA/U79rgFBDf2tASAA/QwAAIA4AACAOAAAgDgAAIA4/Tn9Uv1QC5kB" +
  "AQF7IAD9DP9/AAD/fwAA/38AAP9/AAD9TkEN/asBIQEgAP0MAIAAAACAAAAAgAAAAIAAAP1OQRD9qwEgAf0MAACAOAAAgDgAAIA4AACAOP2uAf0MAACA" +
  "OAAAgDgAAIA4AACAOP3lASAB/QwAAAA4AAAAOAAAADgAAAA4/a4BIAH9DAAAgAAAAIAAAACAAAAAgAD9Of1S/VALrwICAn8CewJAA0AgA0UNAf0MAAAA" +
  "AAAAAAAAAAAAAAAAACEGIABBgAhqIQQDQCAGIAD9AAQA/Qz///9/////f////3////9//U4gAP0ABBD9DP///3////9/////f////3/9Tv24Af24ASEG" +
  "IABBIGohACAAIARJDQALIAYQACEFIAVBgICA/AdPBEAgAkMAAMB/OAIAIAJBBGpBAEGABPwLAAUgAEGACGshACAFQRd2IQUgBUEPIAVBD0sbIQUgAiAF" +
  "QQ5rQRd0NgIAQYwCIAVrQRd0/REhBwNAIAIgAP0ABAAgB/3mARADIAD9AAQQIAf95gEQA/2GAf0LBAQgAkEQaiECIABBIGohACAAIARJDQALIAJBgARr" +
  "IQILIAJBhARqIQIgA0EBayEDDAALCwuHAQIBfwJ7AkADQCACRQ0BIAD9CQIAIQQgAUGACGohAwNAIAD9AAQEIQUgASAB/QAEACAF/akBEAQgBP3mAf3k" +
  "Af0LBAAgASAB/QAEECAF/aoBEAQgBP3mAf3kAf0LBBAgAEEQaiEAIAFBIGohASABIANJDQALIABBBGohACACQQFrIQIMAAsLC1YA/QzAfwAAwH8AAMB/" +
  "AADAfwAAIAD9DP9/AAD/fwAA/38AAP9/AAD9rgEgAEEQ/a0B/QwBAAAAAQAAAAEAAAABAAAA/U79rgFBEP2tASAAIAD9Qv1SC0UBAX8gACADQYAIbGoh" +
  "BAJAA0AgACAETw0BIAIgAP0ABAAQByAA/QAEEBAH/YYB/QsEACAAQSBqIQAgAkEQaiECDAALCwtoAgF/AXsgASACQYAIbGohAwJAA0AgASADTw0BIAD9" +
  "AAQAIQQgASAB/QAEACAE/akBQRD9qwH95AH9CwQAIAEgAf0ABBAgBP2qAUEQ/asB/eQB/QsEECAAQRBqIQAgAUEgaiEBDAALCws=";

/** Encodes and decodes whole blocks within a memory; positions are in bytes. */
export interface Codec {
  /**
   * Encodes `values + residual` into `target`; `residual` becomes what is lost, zero in blocks that are not finite. Formats
   * without feedback encode `values` and do not touch `residual`.
   */
  readonly encode: (values: number, residual: number, target: number, blocks: number) => void;
  /** `target += source`, decoded. */
  readonly add: (source: number, target: number, blocks: number) => void;
}

let compiled: WebAssembly.Module | undefined;

/** The codec of a format for what lies in `memory`. */
export function codecOf(memory: WebAssembly.Memory, compression: Compression): Codec {
  compiled ??= new WebAssembly.Module(Uint8Array.fromBase64(assembled));
  const { exports } = new WebAssembly.Instance(compiled, { codec: { memory } });
  return { encode: exports[`${compression}_encode`], add: exports[`${compression}_add`] } as unknown as Codec;
}
