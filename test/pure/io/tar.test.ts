import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { RcmError } from "../../../core/error.ts";
import { writeTar } from "../../../core/io/tar.ts";
import { readTar } from "../../harness/archives.ts";
import { lcg } from "../metrics/data.ts";

const dir = mkdtempSync(join(tmpdir(), "rcm-tar-"));
afterAll(() => rmSync(dir, { recursive: true }));
const path = join(dir, "a.tar");
const utf8 = new TextEncoder();

/** Builds a header of its own, apart from the writer under test. */
function header(name: string, size: number, type = "0", more: (h: Uint8Array) => void = () => {}): Uint8Array {
  const h = new Uint8Array(512);
  h.set(utf8.encode(name).subarray(0, 100), 0);
  h.set(utf8.encode(`${size.toString(8).padStart(11, "0")}\0`), 124);
  h.set(utf8.encode(type), 156);
  h.set(utf8.encode("ustar\x0000"), 257);
  more(h);
  let sum = 8 * 32;
  h.forEach((v, i) => (sum += i >= 148 && i < 156 ? 0 : v));
  h.set(utf8.encode(`${sum.toString(8).padStart(6, "0")}\0 `), 148);
  return h;
}
function body(data: string | Uint8Array): Uint8Array {
  const bytes = typeof data === "string" ? utf8.encode(data) : data;
  const out = new Uint8Array(Math.ceil(bytes.length / 512) * 512);
  out.set(bytes);
  return out;
}
const END = new Uint8Array(1024);
function put(...parts: Uint8Array[]): void {
  writeFileSync(path, Buffer.concat(parts));
}
const list = (): [string, string][] => Array.from(readTar(path), (m) => [m.name, new TextDecoder().decode(m.data)]);
function failure(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof RcmError) return `${error.code} ${error.message}`;
    throw error;
  }
  return "nothing";
}

describe("readTar and writeTar", () => {
  test("roundtrip: names of every length, empty and block-sized members", () => {
    const random = lcg(3);
    const entries = [0, 1, 511, 512, 513, 5000].map((size, i): [string, Uint8Array] => [
      `${"dir/".repeat(i * 8)}${"n".repeat(i * 30 + 1)}-é.bin`,
      Uint8Array.from({ length: size }, () => random() * 256),
    ]);
    writeTar(path, entries);
    expect(Array.from(readTar(path), (m) => [m.name, m.data])).toEqual(entries);
    expect(readFileSync(path).length % 512).toBe(0);
    expect(readdirSync(dir)).toEqual(["a.tar"]);
  });

  test("pax name lengths count their own digits", () => {
    for (let n = 80; n < 120; n++) {
      writeTar(path, [["x".repeat(n), Uint8Array.of(n)]]);
      expect(Array.from(readTar(path), (m) => m.name.length)).toEqual([n]);
    }
    for (let n = 975; n < 1000; n++) {
      writeTar(path, [["y".repeat(n), Uint8Array.of(1)]]);
      expect(Array.from(readTar(path), (m) => m.name.length)).toEqual([n]);
    }
  });

  test("the system's tar reads ours and we read its", () => {
    const tar = Bun.which("tar");
    if (!tar) return;
    const long = `${"long/".repeat(30)}name.txt`;
    writeTar(path, [["a.txt", utf8.encode("alpha")], [long, utf8.encode("beta")]]);
    const listed = Bun.spawnSync([tar, "-tf", path]);
    expect(listed.stdout.toString().trim().split("\n")).toEqual(["a.txt", long]);
    const out = join(dir, "x");
    Bun.spawnSync(["mkdir", out]);
    expect(Bun.spawnSync([tar, "-xf", path, "-C", out]).exitCode).toBe(0);
    expect(readFileSync(join(out, long), "utf8")).toBe("beta");
    for (const format of ["gnu", "pax", "ustar"]) {
      expect(Bun.spawnSync([tar, `--format=${format}`, "-cf", path, "-C", out, "a.txt", "long"]).exitCode).toBe(0);
      expect(list()).toEqual([["a.txt", "alpha"], [long, "beta"]]);
    }
    rmSync(out, { recursive: true });
  });

  test("reads ustar prefixes, GNU long names, pax paths and sizes, base-256 sizes; skips folders and links", () => {
    const pax = (text: string): Uint8Array[] => [header("p", utf8.encode(text).length, "x"), body(text)];
    const base256 = (h: Uint8Array): void => h.set([0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3], 124);
    put(
      header("b", 2, "0", (h) => h.set(utf8.encode("pre/fix"), 345)), body("hi"),
      header("d/", 0, "5"), header("link", 0, "2"),
      header("././@LongLink", 6, "L"), body("gnu/n\0"), header("cut", 1), body("1"),
      ...pax("15 path=päx/n\n"), header("cut", 1), body("2"),
      ...pax("10 size=5\n"), header("sized", 0), body("12345"),
      header("g", 12, "g"), body("12 path=zzz\n"),
      header("b256", 0, "0", base256), body("abc"),
      header("old", 1, "\0"), body("o"), END,
    );
    expect(list()).toEqual([
      ["pre/fix/b", "hi"], ["gnu/n", "1"], ["päx/n", "2"], ["sized", "12345"], ["b256", "abc"], ["old", "o"],
    ]);
  });

  test("gives each member's header offset", () => {
    writeTar(path, [["a", new Uint8Array(600)], ["b", new Uint8Array(1)]]);
    expect(Array.from(readTar(path), (m) => m.offset)).toEqual([0, 512 + 1024]);
  });

  test("equal contents give equal bytes", () => {
    const other = join(dir, "b.tar");
    for (const p of [path, other]) writeTar(p, [["a", Uint8Array.of(1, 2)]]);
    expect(readFileSync(path).equals(readFileSync(other))).toBe(true);
    rmSync(other);
  });

  test("a failing source leaves no file, and its error comes through", () => {
    const target = join(dir, "none.tar");
    const source = function* (): Generator<[string, Uint8Array]> {
      yield ["a", new Uint8Array(3)];
      throw new Error("source failed");
    };
    expect(() => writeTar(target, source())).toThrow("source failed");
    expect(existsSync(target)).toBe(false);
    expect(failure(() => writeTar(target, [["", new Uint8Array(0)]]))).toStartWith("E_ARG");
    expect(readdirSync(dir)).toEqual(["a.tar"]);
  });
});

describe("hostile tars", () => {
  test("cut at any byte: an error that names file and byte, or nothing lost", () => {
    writeTar(path, [["a", new Uint8Array(700)], ["c", new Uint8Array(0)], ["b", new Uint8Array(10)]]);
    const whole = readFileSync(path);
    for (let length = 0; length < whole.length; length += 61) {
      put(whole.subarray(0, length));
      const message = failure(() => list());
      if (length >= whole.length - 512) expect(message).toBe("nothing");
      else expect(message).toMatch(/^E_FORMAT .*a\.tar, byte \d+/);
    }
  });

  test("a wrong checksum", () => {
    const h = header("a", 0);
    h[0] ^= 1;
    put(h, END);
    expect(failure(list)).toMatch(/E_FORMAT .*checksum.*a\.tar, byte 0/);
  });

  test("lying sizes allocate nothing", () => {
    for (const size of [1025, 8 ** 11 - 1]) {
      put(header("big", size), END);
      expect(failure(list)).toMatch(/E_FORMAT .*inside big.*byte 0/);
    }
    put(header("a", 0, "0", (h) => h.fill(0xff, 124, 136)), END);
    expect(failure(list)).toMatch(/E_FORMAT .*out of range/);
    put(header("a", 0, "0", (h) => h.set(utf8.encode("-0000000001\0"), 124)), END);
    expect(failure(list)).toMatch(/E_FORMAT .*not octal/);
    put(header("L", 8 ** 10, "L"), END);
    expect(failure(list)).toMatch(/E_FORMAT .*extended header/);
    put(header("L", 2 ** 21, "L"), new Uint8Array(2 ** 21), END);
    expect(failure(list)).toMatch(/E_FORMAT .*too large/);
  });

  test("damaged pax records", () => {
    for (const record of [
      "0 a=b\n", "99 path=a\n", "8 path=a\n", "x path=a\n", "7 path\n", "10 path=a\nzz", "99999999999 a=b\n",
      "10 size=x\n", "11 size=-1\n", "22 size=9999999999999\n",
    ]) {
      put(header("p", record.length, "x"), body(record), header("a", 0), END);
      expect(failure(list)).toStartWith("E_FORMAT");
    }
    put(header("p", 10, "x"), body("10 path=a\n"), END);
    expect(failure(list)).toMatch(/E_FORMAT .*describes no member/);
  });

  test("no such file and a folder are E_IO", () => {
    expect(failure(() => [...readTar(join(dir, "nothing.tar"))])).toMatch(/^E_IO .*nothing\.tar/);
    expect(failure(() => [...readTar(dir)])).toStartWith("E_IO");
  });

  test("1000 seeded mutations throw only RcmError", () => {
    const random = lcg(77);
    const below = (n: number): number => Math.floor(random() * n);
    writeTar(path, [
      ["a.txt", utf8.encode("alpha")], [`${"p/".repeat(70)}b`, new Uint8Array(600)], ["c", new Uint8Array(0)],
    ]);
    const whole = new Uint8Array(readFileSync(path));
    const outcomes = new Set<string>();
    for (let i = 0; i < 1000; i++) {
      const bytes = whole.slice(0, below(4) === 0 ? below(whole.length) : whole.length);
      for (let n = 1 + below(4); n > 0 && bytes.length > 0; n--)
        bytes[below(bytes.length)] = below(3) === 0 ? 48 + below(10) : below(256);
      // half of the mutants get right checksums, so that damage reaches the fields behind them
      if (below(2) === 0) {
        for (let at = 0; at + 512 <= bytes.length; at += 512) {
          if (new TextDecoder().decode(bytes.subarray(at + 257, at + 262)) !== "ustar") continue;
          let sum = 8 * 32;
          bytes.subarray(at, at + 512).forEach((v, k) => (sum += k >= 148 && k < 156 ? 0 : v));
          bytes.set(utf8.encode(`${sum.toString(8).padStart(6, "0")}\0 `), at + 148);
        }
      }
      writeFileSync(path, bytes);
      outcomes.add(failure(list).split(" ")[0]);
    }
    expect([...outcomes].sort()).toEqual(["E_FORMAT", "nothing"]);
  });
});
