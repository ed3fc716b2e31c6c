/**
 * Control messages over a link: msgpack behind a length, checked by a schema before anything is done with them.
 * @module
 */

import { decode, encode } from "@msgpack/msgpack";
import { MachineError, messageOf } from "../errors.ts";
import type { Link } from "./link.ts";

/** Most bytes of a message: all that 2,048 nodes may tell of themselves takes 12 MB; what they do tell, 0.3 MB. */
export const messageBytes = 1 << 24;
/** Most bytes of what one node says of itself, in any letters; lists within lists take 170 times their bytes to decode. */
export const ownBytes = 1 << 18;

/** Gives a value its type, or throws saying what is wrong with it. */
export type Schema<T> = (value: unknown) => T;

/** A whole number from `least` to `most`. */
export function whole(least: number, most: number): Schema<number> {
  return (value) => {
    if (typeof value === "number" && Number.isInteger(value) && value >= least && value <= most) return value;
    throw new TypeError(`a whole number from ${least} to ${most} was expected`);
  };
}

/** A text of at most so many characters. */
export function text(most: number): Schema<string> {
  return (value) => {
    if (typeof value === "string" && value.length <= most) return value;
    throw new TypeError(`a text of at most ${most} characters was expected`);
  };
}

/** True or false. */
export const truth: Schema<boolean> = (value) => {
  if (typeof value === "boolean") return value;
  throw new TypeError("true or false was expected");
};

/** Something, or null. */
export function nullable<T>(schema: Schema<T>): Schema<T | null> {
  return (value) => value === null ? null : schema(value);
}

/** A list of at most so many. */
export function list<T>(schema: Schema<T>, most: number): Schema<T[]> {
  return (value) => {
    if (Array.isArray(value) && value.length <= most) return value.map(schema);
    throw new TypeError(`a list of at most ${most} was expected`);
  };
}

function entriesOf(value: unknown): [string, unknown][] {
  if (typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype) {
    return Object.entries(value);
  }
  throw new TypeError("an object was expected");
}

/** An object of at most so many texts under any names. */
export function texts(most: number, characters: number): Schema<Record<string, string>> {
  return (value) => {
    const entries = entriesOf(value);
    if (entries.length > most) throw new TypeError(`an object of at most ${most} texts was expected`);
    return Object.fromEntries(entries.map(([name, entry]) => [text(64)(name), text(characters)(entry)]));
  };
}

/** An object with exactly these fields. */
export function object<T>(fields: { readonly [K in keyof T]: Schema<T[K]> }): Schema<T> {
  return (value) => {
    const given = new Map(entriesOf(value));
    const names = Object.keys(fields) as (keyof T & string)[];
    if (given.size !== names.length) throw new TypeError(`exactly the fields ${names.join(", ")} were expected`);
    return Object.fromEntries(names.map((name) => {
      try {
        return [name, fields[name](given.get(name))];
      } catch (error) {
        throw new TypeError(`${name}: ${messageOf(error)}`);
      }
    })) as T;
  };
}

/** An object whose `kind` says which fields it has besides. */
export function variants<T extends { readonly kind: string }>(
  cases: {
    readonly [K in T["kind"]]: {
      readonly [F in Exclude<keyof Extract<T, { kind: K }>, "kind">]: Schema<Extract<T, { kind: K }>[F]>;
    };
  },
): Schema<T> {
  const schemas = new Map(Object.entries(cases).map(([kind, fields]) => [kind, object(fields as Fields)]));
  return (value) => {
    const { kind, ...rest } = Object.fromEntries(entriesOf(value));
    const schema = typeof kind === "string" ? schemas.get(kind) : undefined;
    if (!schema) throw new TypeError(`one of the kinds ${[...schemas.keys()].join(", ")} was expected`);
    return { kind, ...schema(rest) } as unknown as T;
  };
}

type Fields = { readonly [name: string]: Schema<unknown> };

/** Sends a message. */
export async function sendMessage(link: Link, value: unknown): Promise<void> {
  const body = encode(value);
  if (body.length > messageBytes) throw new RangeError(`a message of ${body.length} bytes is longer than allowed`);
  const bytes = new Uint8Array(4 + body.length);
  new DataView(bytes.buffer).setUint32(0, body.length);
  bytes.set(body, 4);
  await link.write(bytes);
}

/**
 * The next message, of at most so many bytes.
 *
 * @throws MachineError if it is too long, is not msgpack or breaks the schema, or the link ends
 */
export async function receiveMessage<T>(link: Link, schema: Schema<T>, most = messageBytes): Promise<T> {
  const header = new Uint8Array(4);
  await link.read(header);
  const length = new DataView(header.buffer).getUint32(0);
  if (length > most) {
    throw new MachineError(`${link.peer} announced a message of ${length} bytes; at most ${most} are allowed`);
  }
  const body = new Uint8Array(length);
  await link.read(body);
  try {
    // A list takes memory for as many elements as it announces; none has more than the message has bytes.
    return schema(decode(body, { maxArrayLength: length, maxMapLength: length, maxExtLength: 0 }));
  } catch (error) {
    throw new MachineError(`${link.peer} sent a message that this process does not understand: ${messageOf(error)}`);
  }
}
