import { RcmError } from "../../error.ts";

/** One field of a protobuf message: varints and fixed values as numbers, length-delimited ones as a view of bytes. */
export interface ProtoField {
  number: number;
  wire: 0 | 1 | 2 | 5;
  /** Wire 0: the low 32 bits, signed. Wire 1 and 5: the value read as a float. Wire 2: 0. */
  value: number;
  /** Wire 2 only. */
  bytes: Uint8Array;
}

const NONE = new Uint8Array(0);

/** Reads the fields of one message in order; every length is checked against the remaining bytes. Throws: E_FORMAT. */
export function* protoFields(bytes: Uint8Array, what: string): Generator<ProtoField> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const bad = (message: string): RcmError =>
    new RcmError("E_FORMAT", `${what}: ${message} at byte ${at}`, { op: "protobuf" });
  /** The low 32 bits, unsigned, and whether higher bits are set. */
  const varint = (): { low: number; high: boolean } => {
    let [low, high] = [0, false];
    for (let i = 0; i < 10; i++) {
      if (at >= bytes.length) throw bad("a number is cut off");
      const byte = bytes[at++];
      if (i < 4) low += (byte & 127) * 2 ** (7 * i);
      else if (i === 4) {
        low += (byte & 15) * 2 ** 28;
        high ||= (byte & 112) !== 0;
      } else high ||= (byte & 127) !== 0;
      if (byte < 128) return { low, high };
    }
    throw bad("a number is longer than ten bytes");
  };
  const take = (n: number): number => {
    if (n > bytes.length - at) throw bad(`a field of ${n} bytes is cut off`);
    at += n;
    return at - n;
  };
  while (at < bytes.length) {
    const key = varint();
    const [number, wire] = [Math.floor(key.low / 8), key.low % 8];
    if (key.high || number < 1) throw bad("no field has this number");
    if (wire === 0) yield { number, wire, value: varint().low | 0, bytes: NONE };
    else if (wire === 1) yield { number, wire, value: view.getFloat64(take(8), true), bytes: NONE };
    else if (wire === 5) yield { number, wire, value: view.getFloat32(take(4), true), bytes: NONE };
    else if (wire === 2) {
      const { low, high } = varint();
      if (high) throw bad("a length is too large");
      const from = take(low);
      yield { number, wire, value: 0, bytes: bytes.subarray(from, from + low) };
    } else throw bad(`wire type ${wire} is not in use`);
  }
}
