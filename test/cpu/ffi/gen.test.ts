import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { abiHash, generate } from "../../../ffi/gen.ts";
import { parseHeader } from "../../../ffi/parse.ts";
import { ABI_HASH } from "../../../ffi/rcm.gen.ts";

const header = readFileSync(join(import.meta.dir, "../../../csrc/include/rcm.h"));

describe("the header", () => {
  test("the committed bindings carry the hash of its bytes", () => {
    expect(ABI_HASH).toBe(abiHash(header));
    expect(ABI_HASH).toBeLessThan(2 ** 52);
    const changed = new Uint8Array(header);
    changed[100] ^= 1;
    expect(abiHash(changed)).not.toBe(ABI_HASH);
  });

  test("no function is lost in reading", () => {
    const text = header.toString().replace(/\/\*[\s\S]*?\*\/|^\s*#.*$/gm, "");
    expect(parseHeader(header.toString()).length).toBe(text.match(/\bRCM_API\b/g)?.length as number);
  });

  test("marks, types and comments are kept", () => {
    const d = parseHeader(`/* ---- one ---- */
/* Does a thing. And more. */
RCM_API rcm_status rcm_one_fwd(const void* x, RCM_HOST RCM_OPT const int64_t* strides,
                               double eps, int32_t dtype, int64_t n);
RCM_API const char* rcm_last_error(void);`);
    expect(d).toEqual([
      {
        name: "rcm_one_fwd", returns: "status", section: "one", doc: "Does a thing.",
        params: [
          { name: "x", kind: "device", optional: false },
          { name: "strides", kind: "host", optional: true },
          { name: "eps", kind: "f64", optional: false },
          { name: "dtype", kind: "i32", optional: false },
          { name: "n", kind: "i64", optional: false },
        ],
      },
      { name: "rcm_last_error", returns: "cstring", section: "one", doc: "", params: [] },
    ]);
  });
});

describe("the bindings", () => {
  const text = generate(Buffer.from(`/* ---- one ---- */
RCM_API rcm_status rcm_one_fwd(const void* x, RCM_OPT const void* x_dot, int64_t n, double eps, int32_t x_dtype);
RCM_API rcm_status rcm_free(RCM_OPT void* memory);`));

  test("several arguments are fields of one object, and only the generated call has their order", () => {
    expect(text).toContain(
      "export interface OneFwdArgs {\n  x: Pointer;\n  xDot: Pointer | 0;\n  n: Int;\n  eps: number;\n" +
        "  xDtype: Code;\n}",
    );
    expect(text).toContain("  oneFwd(a: OneFwdArgs): void;");
    expect(text).toContain("s.rcm_one_fwd(x, xDot, n, eps, xDtype)");
  });
  test("one argument is given by itself", () => {
    expect(text).toContain("  free(memory: Pointer | 0): void;");
  });
});

describe("what the ABI does not allow is an error that names the line", () => {
  const refused: [name: string, text: string, message: string][] = [
    ["unsigned", "RCM_API rcm_status rcm_a(uint32_t n);", 'type "uint32_t" of "n" is not part of the ABI'],
    ["float", "RCM_API rcm_status rcm_a(float x);", 'type "float" of "x" is not part of the ABI'],
    ["struct by value", "RCM_API rcm_status rcm_a(struct S v);", 'type "struct S" of "v"'],
    ["pointer to pointer", "RCM_API rcm_status rcm_a(void** out);", 'type "void* *" of "out"'],
    ["callback", "RCM_API rcm_status rcm_a(void (*f)(int32_t));", "not a declaration of the ABI"],
    ["variadic", "RCM_API rcm_status rcm_a(int32_t n, ...);", 'cannot read parameter "..."'],
    ["no name", "RCM_API rcm_status rcm_a(int32_t);", 'cannot read parameter "int32_t"'],
    ["marked scalar", "RCM_API rcm_status rcm_a(RCM_OPT int32_t n);", 'type "RCM_OPT int32_t"'],
    ["other result", "RCM_API void rcm_a(void);", "not a declaration of the ABI"],
    ["empty list", "RCM_API rcm_status rcm_a();", "an empty list is written (void)"],
    ["foreign name", "RCM_API rcm_status helper(void);", "not a declaration of the ABI"],
    ["same parameter twice", "RCM_API rcm_status rcm_a(int32_t n, int64_t n);", 'two parameters are named "n"'],
    ["word of the language", "RCM_API rcm_status rcm_a(int32_t in);", 'parameter name "in" is taken'],
    ["without RCM_API", "rcm_status rcm_a(void);", "not part of the ABI: rcm_status rcm_a(void);"],
    ["body", "RCM_API rcm_status rcm_a(void) { return 0; }", "not a declaration of the ABI"],
    ["no semicolon", "RCM_API rcm_status rcm_a(void)", "not part of the ABI"],
  ];
  test.each(refused)("%s", (_, text, message) => {
    expect(() => parseHeader(`#define X\n\n${text}\n`)).toThrow(`rcm.h:3: `);
    expect(() => parseHeader(`#define X\n\n${text}\n`)).toThrow(message);
    expect(() => generate(Buffer.from(text))).toThrow(message);
  });
  test("two parameters that become one field", () => {
    const text = "RCM_API rcm_status rcm_a(int32_t x_dot, int32_t xDot);";
    expect(() => generate(Buffer.from(text))).toThrow('rcm_a: two parameters become the field "xDot"');
  });
  test("a function declared twice", () => {
    expect(() => parseHeader("RCM_API rcm_status rcm_a(void);\nRCM_API rcm_status rcm_a(void);")).toThrow(
      "rcm.h:2: rcm_a is declared twice",
    );
  });
});
