import { describe, expect, test } from "bun:test";
import {
  renderMarkdown, renderReport, renderTable, type EvalReport, type EvalRow,
} from "../../../core/metrics/report.ts";

/** A 1 x 1 PNG. */
const PNG = Uint8Array.from(
  Buffer.from(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
    "base64",
  ),
);

function row(name: string, steps: number, fd: number, rest: Partial<EvalRow> = {}): EvalRow {
  return {
    name, steps, guidanceEvals: 2 * steps, fd, fdStd: 0.125, precision: 0.7 + steps / 100, recall: 0.6 + steps / 100,
    density: 0.9 + steps / 100, coverage: 0.8 + steps / 100, vendi: 20 + steps, vendiWithin: 5 + steps / 10,
    agreement: 0.9 + steps / 1000, agreementLow: 0.89, agreementHigh: 0.93, secondsPerSample: 0.002 * steps,
    speedup: 50 / steps, grid: PNG, ...rest,
  };
}

function report(rest: Partial<EvalReport> = {}): EvalReport {
  return {
    title: "Digits",
    recipe: "digits.yaml",
    recipeHash: "abc123",
    dataset: "MNIST test",
    realCount: 10000,
    fakeCount: 5000,
    teacher: row("teacher", 50, 2.5, { speedup: 1, agreement: 0.985 }),
    rows: [row("rcm", 1, 3.25), row("rcm", 4, 2.75), row("scm", 1, 6.5), row("scm", 4, 4.125)],
    reference: row("held-out", 0, 0.5, { secondsPerSample: NaN, speedup: NaN }),
    created: "2026-07-01",
    command: "rcm eval runs/digits",
    device: "cpu",
    notes: ["64 features"],
    ...rest,
  };
}

const NUMBERS = [
  "2.500 ± 0.125",
  "3.250 ± 0.125",
  "2.750 ± 0.125",
  "6.500 ± 0.125",
  "4.125 ± 0.125",
  "0.500 ± 0.125", // fd
  "0.710",
  "0.740",
  "0.610",
  "0.640",
  "0.910",
  "0.940",
  "0.810",
  "0.840",
  "21.00",
  "24.00",
  "70.00",
  "5.100",
  "5.400",
  "10.00",
  "90.1% (89.0–93.0)",
  "90.4% (89.0–93.0)",
  "98.5% (89.0–93.0)",
  "2.00 ms",
  "8.00 ms",
  "100 ms",
  "50.0×",
  "12.5×",
  "1.00×",
];

describe("renderReport", () => {
  const html = renderReport(report());

  test("holds every figure and every fact", () => {
    for (const text of NUMBERS) expect(html).toContain(text);
    for (const text of [
      "Digits", "digits.yaml", "abc123", "MNIST test", "10,000", "5,000", "2026-07-01", "rcm eval runs/digits", "cpu",
      "64 features",
    ]) {
      expect(html).toContain(text);
    }
  });

  test("is self-contained: no script, no link out, no NaN in a drawing", () => {
    expect(html).not.toMatch(/https?:|<script|<link|<iframe|@import|url\(|javascript:/i);
    for (const [, target] of html.matchAll(/\b(?:src|href)="([^"]*)"/g))
      expect(target).toStartWith("data:image/png;base64,");
    expect(html).not.toMatch(/NaN|Infinity|undefined/);
    expect(html).toContain("default-src 'none'");
  });

  test("escapes hostile text everywhere", () => {
    const evil = `"><script>alert(1)</script><img src=x onerror='a'>&`;
    const bad = report({
      title: evil, recipe: evil, recipeHash: evil, dataset: evil, created: evil, command: evil, device: evil,
      notes: [evil],
    });
    bad.rows = bad.rows.map((r) => ({ ...r, name: evil + r.name }));
    bad.teacher.name = evil;
    bad.reference!.name = evil;
    const text = renderReport(bad);
    expect(text).not.toContain("<script");
    expect(text).not.toContain("<img src=x");
    expect(text).toContain("&#60;script&#62;");
    // Quotes cannot end an attribute: every tag still parses to the same set of attribute names.
    expect(text).not.toMatch(/\sonerror='/);
  });

  test("tags are balanced", () => {
    const open: string[] = [];
    for (const [, close, name, self] of html.matchAll(/<(\/?)([a-z][a-z0-9]*)\b[^>]*?(\/?)>/gi)) {
      if (self || ["meta", "img"].includes(name)) continue;
      if (close) expect(open.pop()).toBe(name);
      else open.push(name);
    }
    expect(open).toEqual([]);
  });

  test("is accessible: headers have scopes, pictures and plots have texts, both themes exist", () => {
    for (const [tag] of html.matchAll(/<th\b[^>]*>/g)) expect(tag).toContain("scope=");
    for (const [tag] of html.matchAll(/<img\b[^>]*>/g)) expect(tag).toMatch(/alt="[^"]+"/);
    for (const [tag] of html.matchAll(/<svg\b[^>]*>/g)) expect(tag).toMatch(/aria-label="[^"]+"|aria-hidden="true"/);
    expect(html).toContain("prefers-color-scheme:dark");
    expect(html).toContain('lang="en"');
    expect(html).toContain("width=device-width");
    expect(html.match(/<figure class="plot"/g)?.length).toBe(7);
    expect(html.match(/<img /g)?.length).toBe(6);
  });

  test("teacher row first, best student bold, the teacher never", () => {
    const table = html.slice(html.indexOf("<tbody>"), html.indexOf("</tbody>"));
    const lines = table.split("<tr ").slice(1);
    expect(lines.map((line) => line.match(/class="(\w+)-row"/)?.[1])).toEqual([
      "teacher", "student", "student", "student", "student", "reference",
    ]);
    expect(lines[0]).not.toContain("<strong>");
    expect(lines[2]).toContain("<strong>2.750 ± 0.125</strong>");
    expect(table.match(/<strong>[\d.]+ ± /g)?.length).toBe(1);
  });

  test("also without students, reference, grids, finite values, or with a single step or equal values", () => {
    const lone = report({ rows: [row("rcm", 1, 3, { grid: undefined })], reference: undefined });
    lone.teacher = { ...lone.teacher, fd: 3, fdStd: undefined, grid: undefined };
    const broken = row("rcm", 2, NaN, {
      recall: NaN, vendi: NaN, agreement: NaN, agreementLow: NaN, agreementHigh: NaN, speedup: NaN,
      precision: Infinity,
    });
    const zeros = row("rcm", 2, 0, {
      fdStd: 0, recall: 0, vendi: 1, vendiWithin: 1, agreement: 1, agreementHigh: 1, agreementLow: 0.9,
    });
    for (const r of [
      lone, report({ rows: [] }), report({ rows: [broken] }),
      report({ rows: [zeros], teacher: { ...zeros, name: "t" } }),
    ]) {
      expect(renderReport(r)).not.toMatch(/NaN|Infinity|undefined/);
      expect(renderTable(r)).not.toMatch(/NaN|Infinity|undefined/);
    }
  });

  test("a grid that is not a PNG has a code", () => {
    const bad = report({ rows: [row("rcm", 1, 3, { grid: new Uint8Array(40) })] });
    expect(() => renderReport(bad)).toThrow(expect.objectContaining({ code: "E_ARG" }));
  });
});

describe("renderTable", () => {
  test("holds every figure in aligned columns and strips control characters", () => {
    const r = report();
    r.rows[0].name = "r\u001b[31mcm";
    const text = renderTable(r);
    for (const number of NUMBERS) expect(text).toContain(number);
    expect(text).not.toContain("\u001b");
    expect(text).toContain("2.750 ± 0.125*");
    const lines = text.trimEnd().split("\n");
    expect(lines.length).toBe(8);
    const at = lines[0].indexOf("Recall") - 2;
    for (const line of lines.slice(2)) expect(line.slice(at, at + 2).trim()).toBe("");
  });
});

describe("renderMarkdown", () => {
  test("is one table with every figure, bold best values and escaped text", () => {
    const r = report({ title: "a|b <i>", command: "echo ```" });
    r.rows[0].name = "r|c*m";
    const text = renderMarkdown(r);
    for (const number of NUMBERS) expect(text).toContain(number);
    expect(text).toContain("**2.750 ± 0.125**");
    expect(text).toContain("a\\|b &lt;i&gt;");
    const lines = text.split("\n").filter((line) => line.startsWith("|"));
    expect(lines.length).toBe(8);
    for (const line of lines) expect(line.match(/(?<!\\)\|/g)?.length).toBe(14);
    expect(text).toContain("````sh\necho ```\n````");
  });
});
