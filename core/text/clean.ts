import { fixC1, NAMED, unescapeHtml } from "./html.ts";

/**
 * Prompt cleaning of Wan2.1's public code: ftfy.fix_text, html.unescape twice, runs of white space to one space, ends
 * trimmed. All steps of ftfy 6.3 except the repair of mojibake (UTF-8 decoded as another encoding), which needs a large
 * statistical table of suspicious character sequences. Such text stays unchanged.
 */

/** Latin ligatures and digraphs, decomposed. */
const LIGATURES: Record<string, string> = {
  "\u0132": "IJ",
  "\u0133": "ij",
  "\u0149": "\u02bcn",
  "\u01f1": "DZ",
  "\u01f2": "Dz",
  "\u01f3": "dz",
  "\u01c4": "D\u017d",
  "\u01c5": "D\u017e",
  "\u01c6": "d\u017e",
  "\u01c7": "LJ",
  "\u01c8": "Lj",
  "\u01c9": "lj",
  "\u01ca": "NJ",
  "\u01cb": "Nj",
  "\u01cc": "nj",
  "\ufb00": "ff",
  "\ufb01": "fi",
  "\ufb02": "fl",
  "\ufb03": "ffi",
  "\ufb04": "ffl",
  "\ufb05": "\u017ft",
  "\ufb06": "st",
};

/**
 * Decodes references that end in a semicolon; an unknown upper-case name means the upper case of what its lower-case
 * form names.
 */
function strictUnescape(text: string): string {
  return text.replace(/&(#?)([0-9A-Za-z]{1,24});/g, (whole, hash: string, name: string) => {
    if (hash !== "") {
      const plain = unescapeHtml(whole);
      return plain.includes(";") ? whole : plain;
    }
    const known = NAMED.get(name);
    if (known !== undefined) return known;
    if (name !== name.toUpperCase()) return whole;
    const small = NAMED.get(name.toLowerCase());
    return small !== undefined && unescapeHtml(whole) === whole ? small.toUpperCase() : whole;
  });
}

/** One pass of the character fixes, in ftfy's order. */
function fixOnce(text: string, html: boolean): string {
  return fixC1(html ? strictUnescape(text) : text)
    .replace(/[\u0132\u0133\u0149\u01c4-\u01cc\u01f1-\u01f3\ufb00-\ufb06]/g, (c) => LIGATURES[c])
    .replace(/[\uff01-\uffef]/g, (c) => c.normalize("NFKC"))
    .replaceAll("\u3000", " ")
    .replace(/[\u201c-\u201f]/g, '"')
    .replace(/[\u02bc\u2018-\u201b]/g, "'")
    .replace(/\r\n|[\r\u2028\u2029\u0085]/g, "\n")
    .toWellFormed()
    // biome-ignore lint: control characters are what is looked for
    .replace(/\u001b\[[\p{Nd};]*[a-zA-Z]/gu, "")
    // biome-ignore lint: control characters are what is looked for
    .replace(/[\u0000-\u0008\u000b\u000e-\u001f\u007f\u206a-\u206f\ufeff\ufff9-\ufffc]/g, "")
    .normalize("NFC");
}

/**
 * The character fixes of ftfy, applied to each line until nothing changes. From the first line with "<" on, references
 * are left alone, as the text is markup.
 */
export function fixText(text: string): string {
  let html = true;
  return text
    .split(/(?<=\n)/)
    .map((line) => {
      html &&= !line.includes("<");
      for (let now = line; ; ) {
        const next = fixOnce(now, html);
        if (next === now) return next;
        now = next;
      }
    })
    .join("");
}

/** White space as in Python's `\s`. */
const SPACES = /[\t-\r\u001c- \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/g;

/** A prompt as the public code passes it to the tokenizer. */
export function cleanPrompt(prompt: string): string {
  return unescapeHtml(unescapeHtml(fixText(prompt))).replace(SPACES, " ").replace(/^ | $/g, "");
}
