import { dlopen } from "bun:ffi";
import { afterAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync, readdirSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Symbols } from "../../../ffi/call.ts";
import { RcmError } from "../../../ffi/error.ts";
import { camel } from "../../../ffi/gen.ts";
import { parseHeader, type Declaration, type Param } from "../../../ffi/parse.ts";
import { ABI_HASH, bind, SYMBOLS } from "../../../ffi/rcm.gen.ts";

/** Fake libraries compiled here show what really crosses the boundary, and what the opener does with a wrong one. */

const INCLUDE = join(import.meta.dir, "../../../csrc/include");
const declarations = parseHeader(readFileSync(join(INCLUDE, "rcm.h"), "utf8"));
const compiler = ["cc", "gcc", "clang"].find((c) => spawnSync(c, ["--version"]).status === 0);
if (!compiler) console.log("skipped: ffi_abi needs a C compiler (cc, gcc or clang)");
const folder = mkdtempSync(join(tmpdir(), "rcm-ffi-"));
afterAll(() => rmSync(folder, { recursive: true }));

function compile(name: string, source: string): string {
  const [from, to] = [join(folder, `${name}.c`), join(folder, name)];
  writeFileSync(from, source);
  const r = spawnSync(compiler as string, ["-shared", "-fPIC", "-I", INCLUDE, "-o", to, from], { encoding: "utf8" });
  if (r.status !== 0) throw new Error(r.stderr);
  return to;
}

/** The header's own prototypes with bodies that record every argument; a wrong reading of a type does not compile. */
function echoSource(): string {
  const header = readFileSync(join(INCLUDE, "rcm.h"), "utf8").replace(/\/\*[\s\S]*?\*\//g, "");
  const bodies = declarations.filter((d) => d.returns === "status").map((d) => {
    const list = new RegExp(`\\b${d.name}\\(([^)]*)\\)`).exec(header)?.[1] as string;
    const asDouble = ({ kind, name }: Param): string => {
      if (kind === "f64") return name;
      return kind === "i32" || kind === "i64" ? `(double)${name}` : `(double)(uintptr_t)${name}`;
    };
    const store = d.params.map((p, i) => `  seen[${i}] = ${asDouble(p)};`);
    return `rcm_status ${d.name}(${list}) {\n  calls++;\n${store.join("\n")}\n  return answer;\n}`;
  });
  return `#include "rcm.h"\nstatic double seen[64];\nstatic int calls, answer;
double echo_seen(int i) { return seen[i]; }
int echo_calls(void) { return calls; }
void echo_answer(int a) { answer = a; }
const char* rcm_last_error(void) { return "[some_op] text from C"; }\n${bodies.join("\n")}\n`;
}

/** A value of the kind that fits no other place of the call, at the far end of its range. */
const sample = (p: Param, i: number): number =>
  p.kind === "f64"
    ? -1.25 - i
    : p.kind === "i32"
      ? 2 ** 31 - 1 - i
      : p.kind === "i64"
        ? 2 ** 53 - 1 - i
        : 2 ** 47 - 8 * (i + 1);

describe.skipIf(!compiler)("what crosses the ABI", () => {
  const echo = compiler
    ? (dlopen(compile("echo.so", echoSource()), {
        ...(SYMBOLS as unknown as Parameters<typeof dlopen>[1]),
        echo_seen: { args: ["i32"], returns: "f64" },
        echo_calls: { args: [], returns: "i32" },
        echo_answer: { args: ["i32"], returns: "void" },
      }).symbols as unknown as Symbols)
    : {};
  const lib = bind(echo) as unknown as Record<string, (...args: unknown[]) => void>;
  const status = declarations.filter((d) => d.returns === "status");
  /**
   * Calls a function as core does: one argument by itself, more as fields of one object; "absent" leaves a field out.
   */
  const absent = Symbol();
  const call = (d: Declaration, values: readonly unknown[]): void => {
    const fields = d.params.map((p, i) => [camel(p.name), values[i]] as const).filter(([, v]) => v !== absent);
    if (d.params.length > 1) lib[camel(d.name)](Object.fromEntries(fields));
    else lib[camel(d.name)](...fields.map(([, v]) => v));
  };

  test("every field of every function arrives in its place, of 18 too", () => {
    expect(Math.max(...status.map((d) => d.params.length))).toBeGreaterThan(17);
    for (const d of status) {
      const values = d.params.map(sample);
      call(d, values);
      expect([d.name, ...values.map((_, i) => echo.echo_seen(i))]).toEqual([d.name, ...values]);
    }
  });

  test("every argument is refused when missing or wrong, before C is entered", () => {
    const before = echo.echo_calls();
    const bad: Record<Param["kind"], unknown[]> = {
      f64: [undefined, Number.NaN, Number.POSITIVE_INFINITY, null, "1"],
      i32: [undefined, Number.NaN, 2 ** 31, -(2 ** 31) - 1, 0.5, null, "1", 1n],
      i64: [undefined, Number.NaN, 2 ** 53, -1, 0.5, null, "1", 1n],
      device: [undefined, Number.NaN, 0.5, -8, 2 ** 48, null, "8", 8n],
      host: [undefined, Number.NaN, 0.5, -8, 2 ** 48, null, "8", 8n, [], new Uint8Array(0)],
    };
    for (const d of status) {
      d.params.forEach((p, i) => {
        for (const wrong of [
          ...bad[p.kind],
          ...(p.kind === "device" || p.kind === "host" ? (p.optional ? [] : [0]) : []),
        ]) {
          const values: unknown[] = d.params.map(sample);
          values[i] = wrong;
          expect([d.name, p.name, String(wrong), refusal(() => call(d, values))]).toEqual([
            d.name, p.name, String(wrong), `E_ARG ${d.name.slice(4)} ${camel(p.name)}`,
          ]);
        }
      });
    }
    expect(echo.echo_calls()).toBe(before);
  });

  test("the order in which fields are written does not matter", () => {
    for (const d of status.filter((d) => d.params.length > 1)) {
      const values = d.params.map(sample);
      const fields = d.params.map((p, i) => [camel(p.name), values[i]] as const);
      lib[camel(d.name)](Object.fromEntries(fields.reverse()));
      expect([d.name, ...values.map((_, i) => echo.echo_seen(i))]).toEqual([d.name, ...values]);
    }
  });

  test("optional pointers may be 0, no field may be left out", () => {
    for (const d of status) {
      call(d, d.params.map((p, i) => (p.optional ? 0 : sample(p, i))));
      for (let gone = 0; gone < d.params.length; gone++) {
        expect(() => call(d, d.params.map((p, i) => (i === gone ? absent : sample(p, i))))).toThrow(RcmError);
      }
    }
  });

  test("a view of host memory arrives as its address", () => {
    const bytes = new Uint8Array(new ArrayBuffer(64));
    lib.memoryStats(bytes);
    const whole = echo.echo_seen(0);
    lib.memoryStats(bytes.subarray(16));
    expect(echo.echo_seen(0) - whole).toBe(16);
  });

  test("status numbers become codes, and the text of C arrives without its own prefix", () => {
    const codes = ["E_ARG", "E_SHAPE", "E_DTYPE", "E_OOM", "E_BACKEND", "E_INTERNAL", "E_IO", "E_INTERNAL"];
    codes.forEach((code, i) => {
      echo.echo_answer(i + 1);
      try {
        lib.sync();
        expect("a throw").toBe("nothing");
      } catch (error) {
        expect(error).toMatchObject({ code, op: "sync", message: "[sync] text from C" });
      } finally {
        echo.echo_answer(0);
      }
    });
  });
});

/** Code, op and argument of a refusal. */
function refusal(run: () => void): string {
  try {
    run();
    return "accepted";
  } catch (error) {
    return error instanceof RcmError
      ? `${error.code} ${error.op} ${/^\[\w+\] (\w+) is not acceptable/.exec(error.message)?.[1]}`
      : String(error);
  }
}

describe.skipIf(!compiler)("opening", () => {
  const stubs = (hash: string): string => {
    const others = declarations
      .filter((d: Declaration) => !/abi_hash|last_error|rcm_init/.test(d.name))
      .map((d) => `int ${d.name}(void) { return 0; }`);
    return `#include <stdint.h>
int rcm_abi_hash(int64_t* out) { *out = ${hash}; return 0; }
const char* rcm_last_error(void) { return "[init] no GPU"; }
int rcm_init(int a, int b) { return 5; }\n${others.join("\n")}\n`;
  };
  /** Opens in a child, as the search folders and the forced variant come from the environment. */
  const open = (device: string, env: Record<string, string> = {}): string => {
    const module = JSON.stringify(join(import.meta.dir, "../../../ffi/open.ts"));
    const code = `const { openBackend } = await import(${module});
      try {
        const b = openBackend({ device: ${JSON.stringify(device)}, threads: 1 });
        console.log(b.kind, b.info.isa, b.info.threads);
      } catch (e) {
        console.log(e.code, e.message);
      }`;
    const r = spawnSync(process.execPath, ["-e", code], {
      encoding: "utf8",
      env: { ...process.env, RCM_ISA: "", RCM_LIB_DIR: folder, ...env },
    });
    return r.stdout.trim() || `status ${r.status} signal ${r.signal} ${r.stderr}`;
  };
  const put = (file: string, hash: string): string => compile(file, stubs(hash));
  const remove = (file: string): void => rmSync(join(folder, file));

  test("a library built from another header is refused, with the command that helps", () => {
    put("librcm_cpu.so", "12345");
    expect(open("cpu")).toMatch(
      /^E_BACKEND .*librcm_cpu\.so was built from another rcm\.h; run `npm run build`: want \d+, got 12345$/,
    );
    remove("librcm_cpu.so");
    put("librcm_cuda.so", "12345");
    expect(open("auto")).toMatch(/^E_BACKEND .*librcm_cuda\.so was built from another rcm\.h/);
  });
  test("a CUDA library without a GPU: auto takes the CPU, cuda says why not", () => {
    const built = join(import.meta.dir, "../../../build/lib");
    for (const file of readdirSync(built).filter((f) => f.startsWith("librcm_cpu")))
      symlinkSync(join(built, file), join(folder, file));
    put("librcm_cuda.so", String(ABI_HASH));
    expect(open("auto")).toMatch(/^cpu \w+ 1$/);
    expect(open("cuda")).toBe("E_BACKEND [init] no GPU");
  });
  test("a missing or damaged library is named, and where it was looked for", () => {
    remove("librcm_cuda.so");
    expect(open("cuda")).toStartWith(`E_BACKEND [open] librcm_cuda.so not found in ${folder}; `);
    writeFileSync(join(folder, "librcm_cuda.so"), "not a library");
    expect(open("cuda")).toMatch(/^E_BACKEND \[open\] cannot load .*run `npm run build`/);
    remove("librcm_cuda.so");
  });
  test("RCM_ISA forces a variant, and an unknown one is refused", () => {
    expect(open("cpu", { RCM_ISA: "baseline" })).toBe("cpu baseline 1");
    expect(open("cpu", { RCM_ISA: "sse9" })).toMatch(/^E_BACKEND .*want baseline.*got sse9$/);
  });
});
