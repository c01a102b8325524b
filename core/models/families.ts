import { RcmError } from "../error.ts";
import { netSpec, type Family, type NetConfig, type NetSpec, type Preset } from "./family.ts";
import type { EncoderFamily } from "./text_encoder.ts";
import { umt5 } from "./umt5/family.ts";
import type { VaeFamily } from "./vae.ts";
import { wan } from "./wan/family.ts";
import { wanVae } from "./wan_vae/family.ts";

/** Every family of networks that can be trained and sampled. A new one is a folder and a line here. */
export const FAMILIES: Record<string, Family> = { wan };

/** The autoencoders that LatentSpec.vae names, and the text encoders that TextSpec.encoder names. */
export const VAES: Record<string, VaeFamily> = { wan: wanVae };
export const ENCODERS: Record<string, EncoderFamily> = { umt5 };

/** The preset of the digits recipes. */
export const DIGITS_NET = "wan-digits";

/** Presets of all families by name. */
export const allPresets = (use?: Preset["use"]): Record<string, Preset & { family: Family }> =>
  Object.fromEntries(
    Object.values(FAMILIES).flatMap((family) =>
      Object.entries(family.presets)
        .filter(([, preset]) => use === undefined || preset.use === use)
        .map(([name, preset]) => [name, { ...preset, family }])
    ),
  );

/** The network of a preset. Throws: E_ARG for an unknown name. */
export function presetNet(name: string): NetSpec {
  const presets = allPresets();
  const found = presets[name];
  if (!found) {
    const want = Object.keys(presets).join(", ");
    throw new RcmError("E_ARG", `no network is called ${name}`, { op: "usage", want });
  }
  return netSpec(found.family, found.config);
}

/** The network whose video sizes apply when none is named: the first preset of a family with videos. Throws: E_ARG. */
export function videoNet(): NetSpec {
  const found = Object.entries(allPresets()).find(([, { family }]) => family.video !== null);
  return presetNet(found?.[0] ?? "");
}

/** Name of the preset with these sizes, or null. The number of text tokens is not compared. */
export function presetOf(family: Family, config: NetConfig): string | null {
  const sizes = (c: NetConfig): string =>
    JSON.stringify({ ...c, secondTime: false, textLen: null }, Object.keys(c).sort());
  return Object.entries(family.presets).find(([, preset]) => sizes(preset.config) === sizes(config))?.[0] ?? null;
}
