/**
 * Numbers in fewer bytes, in WebAssembly with vectors: f16, bf16 and int8, each to the nearest, ties to even, in blocks of
 * 256 elements.
 *
 * - `int8`: an f32 scale, the block's largest magnitude / 127, and 256 integers. What is lost is told, so that it can be
 *   added the next time. A block whose largest is below 2^-100 is kept for then as a whole.
 * - `f16`: an f32 scale, the power of two that puts the largest magnitude into 2^14 … 2^15, and 256 f16. So large numbers do
 *   not overflow, and small ones have 11 bits down to 2^-28 of the block's largest, fewer down to 2^-38.
 * - `bf16`: 256 bf16, without a scale.
 *
 * Infinity and NaN stay not finite; in `int8` and `f16` all of their block becomes NaN, in `int8` from 2^127 on.
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
  "OF9hZGQAAgpmMTZfZW5jb2RlAAUHZjE2X2FkZAAGC2JmMTZfZW5jb2RlAAgIYmYxNl9hZGQACQrQDwpBACAAIAAgAP0NCAkKCwwNDg8AAQIDBAUGB/24" +
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
  "IAD9DP8PAMj/DwDI/w8AyP8PAMj9rgEgAEEN/a0B/QwBAAAAAQAAAAEAAAABAAAA/U79rgFBDf2tASAA/QwAAIA4AACAOAAAgDgAAIA4/Tn9Uv1QCzIA" +
  "IABBDf2rAf0MAOD/jwDg/48A4P+PAOD/j/1O/QwAAIB3AACAdwAAgHcAAIB3/eYBC68CAgJ/AnsCQANAIANFDQH9DAAAAAAAAAAAAAAAAAAAAAAhBiAA" +
  "QYAIaiEEA0AgBiAA/QAEAP0M////f////3////9/////f/1OIAD9AAQQ/Qz///9/////f////3////9//U79uAH9uAEhBiAAQSBqIQAgACAESQ0ACyAG" +
  "EAAhBSAFQYCAgPwHTwRAIAJDAADAfzgCACACQQRqQQBBgAT8CwAFIABBgAhrIQAgBUEXdiEFIAVBDyAFQQ9LGyEFIAIgBUEOa0EXdDYCAEGMAiAFa0EX" +
  "dP0RIQcDQCACIAD9AAQAIAf95gEQAyAA/QAEECAH/eYBEAP9hgH9CwQEIAJBEGohAiAAQSBqIQAgACAESQ0ACyACQYAEayECCyACQYQEaiECIANBAWsh" +
  "AwwACwsLhwECAX8CewJAA0AgAkUNASAA/QkCACEEIAFBgAhqIQMDQCAA/QAEBCEFIAEgAf0ABAAgBf2nARAEIAT95gH95AH9CwQAIAEgAf0ABBAgBf2o" +
  "ARAEIAT95gH95AH9CwQQIABBEGohACABQSBqIQEgASADSQ0ACyAAQQRqIQAgAkEBayECDAALCwtWAP0MwH8AAMB/AADAfwAAwH8AACAA/Qz/fwAA/38A" +
  "AP9/AAD/fwAA/a4BIABBEP2tAf0MAQAAAAEAAAABAAAAAQAAAP1O/a4BQRD9rQEgACAA/UL9UgtFAQF/IAAgA0GACGxqIQQCQANAIAAgBE8NASACIAD9" +
  "AAQAEAcgAP0ABBAQB/2GAf0LBAAgAEEgaiEAIAJBEGohAgwACwsLaAIBfwF7IAEgAkGACGxqIQMCQANAIAEgA08NASAA/QAEACEEIAEgAf0ABAAgBP2p" +
  "AUEQ/asB/eQB/QsEACABIAH9AAQQIAT9qgFBEP2rAf3kAf0LBBAgAEEQaiEAIAFBIGohAQwACwsL";

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
