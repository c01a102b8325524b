import { describe, expect, test } from "bun:test";
import { cleanPrompt } from "../../../core/text/clean.ts";
import { unescapeHtml } from "../../../core/text/html.ts";
import expected from "../../golden/text/expected.json" with { type: "json" };

describe("cleanPrompt", () => {
  test("as Python with ftfy, html.unescape twice and white space collapsed", () => {
    expect(expected.clean.length).toBeGreaterThan(25);
    for (const [source, want] of expected.clean) expect([source, cleanPrompt(source)]).toEqual([source, want]);
  });

  test("mojibake stays as it was given: ftfy's repair of it is the one step left out", () => {
    for (const [source, kept, repaired] of expected.mojibake) {
      expect(cleanPrompt(source)).toBe(kept);
      expect(kept).not.toBe(repaired);
    }
  });

  test("clean text is a fixed point", () => {
    for (const [, want] of expected.clean) if (!want.includes("&")) expect(cleanPrompt(want)).toBe(want);
  });

  test("lone surrogates become the replacement character, pairs stay", () => {
    expect(cleanPrompt("a\ud83d b\udc00 \ud83d\ude42")).toBe("a\ufffd b\ufffd \ud83d\ude42");
  });

  test("long text takes linear time", () => {
    const began = performance.now();
    expect(cleanPrompt("&amp;".repeat(100_000)).length).toBe(100_000);
    expect(cleanPrompt("&".repeat(100_000)).length).toBe(100_000);
    expect(cleanPrompt(`${"\u001b[".repeat(50_000)}x`).length).toBeGreaterThan(0);
    expect(performance.now() - began).toBeLessThan(5000);
  });
});

test("html: the longest name without semicolon wins", () => {
  expect(unescapeHtml("&notit; &notin; &not &nosuchname; &amp")).toBe("¬it; ∉ ¬ &nosuchname; &");
  expect(unescapeHtml("&#x110000; &#0; &#128; &#xfdd0;| &#11;|")).toBe("\ufffd \ufffd € | |");
});
