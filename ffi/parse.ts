/** Parser of rcm.h: only the declaration forms that the ABI allows. */

export type ParamKind = "i32" | "i64" | "f64" | "device" | "host";

export interface Param {
  name: string;
  kind: ParamKind;
  optional: boolean;
}

export interface Declaration {
  /** C name, e.g. rcm_linear_fwd. */
  name: string;
  returns: "status" | "cstring";
  params: Param[];
  /** Title of the section that holds the declaration. */
  section: string;
  /** First sentence of its comment, or of its op's comment; may be empty. */
  doc: string;
}

const POINTER = /^(?:const )?(?:void|double|int32_t|int64_t|char)\*$/;
const SCALARS: Record<string, ParamKind> = { int32_t: "i32", int64_t: "i64", double: "f64" };
const MARKS = ["RCM_OPT", "RCM_HOST"];
/** Names that the generated methods use, and reserved words of TypeScript. */
const TAKEN = new Set(
  (
    "s status fail finite host int32 int64 optionalHost optionalPointer pointer arguments await break case " +
    "catch class const continue default delete do else enum eval export extends false finally for function if " +
    "import in instanceof new null return super switch this throw true try typeof undefined var void while " +
    "with yield let static"
  ).split(" "),
);

function parseParam(text: string, where: string): Param {
  const words = text.trim().replace(/\s+/g, " ").replace(/ ?\* ?/g, "* ").split(" ");
  const name = words.pop() as string;
  const marks = words.filter((w) => MARKS.includes(w));
  const type = words.filter((w) => !MARKS.includes(w)).join(" ");
  if (!/^[A-Za-z_]\w*$/.test(name) || type === "") throw new Error(`${where}: cannot read parameter "${text.trim()}"`);
  if (TAKEN.has(name)) throw new Error(`${where}: parameter name "${name}" is taken by the generated code`);
  if (POINTER.test(type)) {
    return { name, kind: marks.includes("RCM_HOST") ? "host" : "device", optional: marks.includes("RCM_OPT") };
  }
  const kind = Object.hasOwn(SCALARS, type) ? SCALARS[type] : undefined;
  if (!kind || marks.length > 0) {
    throw new Error(`${where}: type "${[...marks, type].join(" ")}" of "${name}" is not part of the ABI`);
  }
  return { name, kind, optional: false };
}

function parseDeclaration(text: string, where: string): Pick<Declaration, "name" | "returns" | "params"> {
  const form = /^RCM_API\s+(rcm_status|const char\s*\*)\s*(rcm_\w+)\s*\(([^()]*)\)\s*;$/.exec(text);
  if (!form) throw new Error(`${where}: not a declaration of the ABI: ${text.split("\n")[0]}`);
  if (form[3].trim() === "") throw new Error(`${where}: ${form[2]}: an empty list is written (void)`);
  const params = form[3].trim() === "void" ? [] : form[3].split(",").map((p) => parseParam(p, where));
  const twice = params.find((p, i) => params.findIndex((q) => q.name === p.name) !== i);
  if (twice) throw new Error(`${where}: ${form[2]}: two parameters are named "${twice.name}"`);
  return { name: form[2], returns: form[1] === "rcm_status" ? "status" : "cstring", params };
}

const firstSentence = (comment: string): string => {
  const text = comment.replace(/^\/\*+|\*\/$/g, "").replace(/\n\s*\*?/g, " ").replace(/\s+/g, " ").trim();
  return /^.*?\.(?=\s|$)/.exec(text)?.[0] ?? text;
};

/** The forms a header may contain, tried in this order: space, section title, comment, frame, declaration. */
const FORMS = [
  /\s+/y,
  /\/\* -{2,} (.+?) -{2,} \*\//y,
  /\/\*[\s\S]*?\*\//y,
  /extern "C" \{|\}|typedef int32_t rcm_status;|enum \{[^{}]*\};/y,
  /RCM_API\b[^;]*;/y,
];

/** Parses every declaration. Throws: Error naming the line of anything outside the allowed forms. */
export function parseHeader(source: string): Declaration[] {
  // Directives become empty lines, to keep line numbers.
  const body = source.replace(/^[ \t]*#.*$/gm, "");
  const out: Declaration[] = [];
  let [section, doc, direct] = ["", "", false];
  for (let at = 0; at < body.length; ) {
    const where = `rcm.h:${body.slice(0, at).split("\n").length}`;
    const form = FORMS.findIndex((re) => ((re.lastIndex = at), re.test(body)));
    if (form < 0) throw new Error(`${where}: not part of the ABI: ${body.slice(at).split("\n")[0]}`);
    const text = body.slice(at, FORMS[form].lastIndex);
    at += text.length;
    if (form === 1) [section, doc, direct] = [/-{2,} (.+?) -{2,}/.exec(text)?.[1] ?? "", "", false];
    if (form === 2) [doc, direct] = [firstSentence(text), true];
    if (form !== 4) continue;
    const declaration = parseDeclaration(text, where);
    if (out.some((d) => d.name === declaration.name)) {
      throw new Error(`${where}: ${declaration.name} is declared twice`);
    }
    // The comment of an op applies to all its verbs.
    out.push({ ...declaration, section, doc: direct || /_(fwd|jvp|vjp)$/.test(declaration.name) ? doc : "" });
    direct = false;
  }
  return out;
}
