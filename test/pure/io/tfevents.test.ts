import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { RcmError } from "../../../core/error.ts";
import { encodePng } from "../../../core/io/png.ts";
import { crc32c, EventWriter, maskedCrc } from "../../../core/io/tfevents.ts";

const root = mkdtempSync(join(tmpdir(), "rcm-events-"));
afterAll(() => rmSync(root, { recursive: true }));
const utf8 = new TextEncoder();

/** CRC-32C bit by bit from the unreflected polynomial: shares nothing with the table under test. */
function slowCrc(bytes: Uint8Array): number {
  let crc = 0xffffffffn;
  for (const byte of bytes)
    for (let bit = 0; bit < 8; bit++) {
      const input = BigInt((byte >> bit) & 1);
      const top = (crc >> 31n) & 1n;
      crc = (crc << 1n) & 0xffffffffn;
      if (top !== input) crc ^= 0x1edc6f41n;
    }
  let reflected = 0n;
  for (let bit = 0n; bit < 32n; bit++) if ((crc >> bit) & 1n) reflected |= 1n << (31n - bit);
  return Number(reflected ^ 0xffffffffn);
}

type Field = bigint | number | Uint8Array;
/** A mini protobuf parser: fields by number. */
function parse(bytes: Uint8Array): Map<number, Field> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const fields = new Map<number, Field>();
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = Number(varint());
    const wire = tag & 7;
    if (wire === 0) fields.set(tag >> 3, varint());
    else if (wire === 1) {
      fields.set(tag >> 3, view.getFloat64(at, true));
      at += 8;
    } else if (wire === 5) {
      fields.set(tag >> 3, view.getFloat32(at, true));
      at += 4;
    } else {
      expect(wire).toBe(2);
      const length = Number(varint());
      expect(at + length).toBeLessThanOrEqual(bytes.length);
      fields.set(tag >> 3, bytes.subarray(at, at + length));
      at += length;
    }
  }
  expect(at).toBe(bytes.length);
  return fields;
}

function events(path: string): Map<number, Field>[] {
  const bytes = new Uint8Array(readFileSync(path));
  const view = new DataView(bytes.buffer);
  const unmask = (masked: number): number => {
    const rotated = (masked - 0xa282ead8) >>> 0;
    return ((rotated >>> 17) | (rotated << 15)) >>> 0;
  };
  const found: Map<number, Field>[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = Number(view.getBigUint64(at, true));
    expect(unmask(view.getUint32(at + 8, true))).toBe(slowCrc(bytes.subarray(at, at + 8)));
    const data = bytes.subarray(at + 12, at + 12 + length);
    expect(data.length).toBe(length);
    expect(unmask(view.getUint32(at + 12 + length, true))).toBe(slowCrc(data));
    found.push(parse(data));
    at += length + 16;
  }
  return found;
}
const value = (event: Map<number, Field>): Map<number, Field> =>
  parse(parse(event.get(5) as Uint8Array).get(1) as Uint8Array);
const string = (field: Field | undefined): string => new TextDecoder().decode(field as Uint8Array);
function code(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof RcmError) return error.code;
    throw error;
  }
  return "nothing";
}

describe("crc32c", () => {
  test("known answers", () => {
    expect(crc32c(utf8.encode("123456789"))).toBe(0xe3069283);
    // RFC 3720, B.4
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    expect(crc32c(new Uint8Array(32).fill(255))).toBe(0x62a8ab43);
    expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe(0x46dd794e);
    expect(crc32c(new Uint8Array(0))).toBe(0);
  });

  test("equals the bitwise definition; the mask is rotate right by 15 and add", () => {
    for (let n = 0; n < 40; n++) {
      const bytes = Uint8Array.from({ length: n }, (_, i) => (i * 37 + n * 11) & 255);
      const crc = slowCrc(bytes);
      expect(crc32c(bytes)).toBe(crc);
      const rotated = ((BigInt(crc) >> 15n) | (BigInt(crc) << 17n)) & 0xffffffffn;
      expect(maskedCrc(bytes)).toBe(Number((rotated + 0xa282ead8n) & 0xffffffffn));
    }
  });
});

describe("EventWriter", () => {
  test("the first record is the file version, in a file TensorBoard recognises", () => {
    const writer = new EventWriter(join(root, "deep", "a"));
    expect(readdirSync(join(root, "deep", "a"))).toEqual([writer.path.split("/").at(-1)!]);
    expect(writer.path).toMatch(/\/events\.out\.tfevents\.\d{10}\./);
    const [first, ...rest] = events(writer.path);
    expect(string(first.get(3))).toBe("brain.Event:2");
    expect(Math.abs((first.get(1) as number) - Date.now() / 1000)).toBeLessThan(60);
    expect(rest).toEqual([]);
    writer.close();
  });

  test("scalars come back without flush or close", () => {
    const writer = new EventWriter(join(root, "b"));
    const rows: [string, number, number, number][] = [
      ["loss", 0.1, 0, 1.5],
      ["norm/größe", -3e38, 127, 1700000000.25],
      ["x".repeat(200), Number.POSITIVE_INFINITY, 128, 2],
      ["nan", Number.NaN, 2 ** 40 + 3, 3],
      ["before", 1, -1, 4],
    ];
    for (const [tag, v, step, time] of rows) writer.scalar(tag, v, step, time);
    const back = events(writer.path).slice(1);
    expect(
      back.map((e) => [string(value(e).get(1)), value(e).get(2), BigInt.asIntN(64, e.get(2) as bigint), e.get(1)]),
    ).toEqual(rows.map(([tag, v, step, time]) => [tag, Math.fround(v), BigInt(step), time]));
    writer.close();
  });

  test("images come back whole, grey and RGB", () => {
    const writer = new EventWriter(join(root, "c"));
    for (const channels of [1, 3] as const) {
      const png = encodePng(new Uint8Array(300 * 2 * channels).fill(7), 300, 2, channels);
      writer.image("samples", png, { width: 300, height: 2 }, channels);
      const v = value(events(writer.path).at(-1)!);
      expect(string(v.get(1))).toBe("samples");
      const image = parse(v.get(4) as Uint8Array);
      expect([image.get(1), image.get(2), image.get(3)]).toEqual([2n, 300n, BigInt(channels)]);
      expect(image.get(4)).toEqual(png);
    }
    writer.flush();
    writer.close();
  });

  test("two writers of one moment have files of their own", () => {
    const writers = [new EventWriter(join(root, "d")), new EventWriter(join(root, "d"))];
    writers.forEach((writer, i) => writer.scalar("i", i, 0));
    expect(readdirSync(join(root, "d")).length).toBe(2);
    expect(writers.map((w) => value(events(w.path)[1]).get(2))).toEqual([0, 1]);
    for (const writer of writers) writer.close();
  });

  test("a killed process keeps its events", () => {
    const module = join(import.meta.dir, "../../../core/io/tfevents.ts");
    const script = `import { EventWriter } from ${JSON.stringify(module)};
      const w = new EventWriter(${JSON.stringify(join(root, "e"))});
      for (let i = 0; i < 50; i++) w.scalar("loss", i, i);
      process.kill(process.pid, "SIGKILL");`;
    const file = join(root, "killed.ts");
    writeFileSync(file, script);
    Bun.spawnSync([process.execPath, file]);
    const [name] = readdirSync(join(root, "e"));
    expect(events(join(root, "e", name)).length).toBe(51);
  });

  test("errors: closed, unusable folder, a step that is not whole", () => {
    const writer = new EventWriter(join(root, "f"));
    expect(code(() => writer.scalar("a", 1, 0.5))).toBe("E_ARG");
    writer.close();
    writer.close();
    writer.flush();
    expect(code(() => writer.scalar("a", 1, 0))).toBe("E_STATE");
    writeFileSync(join(root, "file"), "");
    expect(code(() => new EventWriter(join(root, "file")))).toBe("E_IO");
  });
});
