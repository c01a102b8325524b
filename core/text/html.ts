import table from "./html_entities.json" with { type: "json" };

/** Named character references of HTML, from the WHATWG standard. `legacy` names need no semicolon. */
export const NAMED: ReadonlyMap<string, string> = new Map(Object.entries<string>(table.named));
const LEGACY: ReadonlySet<string> = new Set(table.legacy.split(" "));

/** Characters of Windows-1252 at 0x80 to 0x9f; its five undefined bytes map to themselves. */
const WINDOWS_1252 =
  "\u20ac\u0081\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\u008d\u017d\u008f" +
  "\u0090\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u009d\u017e\u0178";

/** Replaces C1 controls by the characters of Windows-1252 at the same codes. */
export const fixC1 = (text: string): string =>
  text.replace(/[\u0080-\u009f]/g, (c) => WINDOWS_1252[c.charCodeAt(0) - 0x80]);

/** Decodes a numeric reference; invalid ones are replaced or dropped, as in Python's html.unescape. */
function numeric(digits: string, base: 10 | 16): string {
  const significant = digits.replace(/^0+/, "");
  const code = significant.length > 7 ? Number.POSITIVE_INFINITY : Number.parseInt(significant || "0", base);
  if (code === 0 || (code >= 0xd800 && code <= 0xdfff) || code > 0x10ffff) return "\ufffd";
  if (code >= 0x80 && code <= 0x9f) return fixC1(String.fromCharCode(code));
  const dropped =
    code <= 8 ||
    code === 0xb ||
    (code >= 0xe && code <= 0x1f) ||
    code === 0x7f ||
    (code >= 0xfdd0 && code <= 0xfdef) ||
    (code & 0xfffe) === 0xfffe;
  return dropped ? "" : String.fromCodePoint(code);
}

function named(name: string): string {
  const whole = name.endsWith(";") ? NAMED.get(name.slice(0, -1)) : LEGACY.has(name) ? NAMED.get(name) : undefined;
  if (whole !== undefined) return whole;
  for (let n = name.length - 1; n > 1; n--) {
    const start = name.slice(0, n);
    if (LEGACY.has(start)) return (NAMED.get(start) as string) + name.slice(n);
  }
  return `&${name}`;
}

/** Decodes all character references of HTML, with and without semicolon, as Python's html.unescape. */
export const unescapeHtml = (text: string): string =>
  text.replace(
    /&(?:#([0-9]+);?|#[xX]([0-9a-fA-F]+);?|([^\t\n\f <&#;]{1,32};?))/gu,
    (_, decimal: string | undefined, hex: string | undefined, name: string) =>
      decimal !== undefined ? numeric(decimal, 10) : hex !== undefined ? numeric(hex, 16) : named(name),
  );
