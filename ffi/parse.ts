/** Reader of rcm.h: the few declaration forms the ABI allows, nothing else. */

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
  /** Section title the declaration stands under. */
  section: string;
}

const POINTER = /^(?:const )?(?:void|double|int32_t|int64_t|char) ?\*$/;

function parseParam(text: string, where: string): Param {
  const words = text.trim().replace(/\s+/g, " ").replace(/ ?\* ?/g, "* ").split(" ");
  const name = words.pop() as string;
  const marks: string[] = words.filter((w) => w === "RCM_OPT" || w === "RCM_HOST");
  const type = words.filter((w) => !marks.includes(w)).join(" ");
  if (!/^[A-Za-z_]\w*$/.test(name)) throw new Error(`${where}: cannot read parameter "${text.trim()}"`);
  const optional = marks.includes("RCM_OPT");
  if (POINTER.test(type)) return { name, kind: marks.includes("RCM_HOST") ? "host" : "device", optional };
  const scalar = ({ int32_t: "i32", int64_t: "i64", double: "f64" } as const)[type];
  if (!scalar || marks.length > 0) throw new Error(`${where}: type "${type}" is not part of the ABI`);
  return { name, kind: scalar, optional: false };
}

/** Parses every RCM_API declaration. Throws: Error naming the line of anything outside the allowed forms. */
export function parseHeader(source: string): Declaration[] {
  const out: Declaration[] = [];
  const body = source.replace(/^#define.*$/gm, "");
  const token = /\/\* -{2,} (.+?) -{2,} \*\/|\/\*[\s\S]*?\*\/|RCM_API\s+([^;]*);/g;
  let section = "";
  for (let m = token.exec(body); m; m = token.exec(body)) {
    if (m[1]) section = m[1].trim();
    if (!m[2]) continue;
    const where = `rcm.h:${body.slice(0, m.index).split("\n").length}`;
    const form = /^(rcm_status|const char\s*\*)\s*(rcm_\w+)\s*\(([\s\S]*)\)$/.exec(m[2].trim());
    if (!form) throw new Error(`${where}: not a declaration of the ABI: ${m[2].split("\n")[0]}`);
    const list = form[3].trim();
    const params = list === "void" || list === "" ? [] : list.split(",").map((p) => parseParam(p, where));
    out.push({ name: form[2], returns: form[1] === "rcm_status" ? "status" : "cstring", params, section });
  }
  return out;
}
