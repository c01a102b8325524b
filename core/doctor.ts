import { spawnSync } from "node:child_process";
import { statfsSync } from "node:fs";
import { freemem, totalmem } from "node:os";
import { Device, type DeviceName } from "./tensor.ts";
import { gibibytes } from "./units.ts";

export interface Check {
  name: string;
  ok: boolean;
  /** Without it training still runs. */
  optional: boolean;
  found: string;
  /** How to fix it, in one line. */
  fix: string;
}

function output(command: string, args: string[]): string | null {
  const r = spawnSync(command, args, { encoding: "utf8", timeout: 10_000 });
  return r.status === 0 ? r.stdout.trim().split("\n")[0] : null;
}

/** Checks what training needs, and what is optional. */
export function examine(device: DeviceName): Check[] {
  const checks: Check[] = [];
  const add = (c: Partial<Check> & Pick<Check, "name" | "ok" | "found">): void =>
    void checks.push({ optional: false, ...c, fix: c.ok ? "" : (c.fix ?? "") });
  add({ name: "bun", ok: true, found: Bun.version });
  try {
    using opened = Device.open({ device });
    const { info, path, kind } = opened.backend;
    add({ name: "native library", ok: true, found: `${path} (${kind}, ${info.isa})` });
    add({
      name: "processor variant",
      ok: info.isa === info.best_isa || kind === "cuda",
      found: `${info.isa}, best ${info.best_isa}`,
      fix: "npm run build",
      optional: true,
    });
    add({ name: "threads", ok: info.threads > 0, found: String(info.threads) });
    if (info.cudnn)
      add({
        name: "cuDNN",
        ok: !info.cudnn.startsWith("none"),
        found: info.cudnn,
        fix:
          "pip install nvidia-cudnn-cu13, or set RCM_CUDA_LIBS to its folder" +
          "   (without it some attention shapes are slower)",
        optional: true,
      });
    add({
      name: "BLAS",
      ok: info.blas !== "built-in",
      found: info.blas,
      fix: "apt-get install -y libopenblas0-pthread   (matmul is several times slower without)",
      optional: true,
    });
  } catch (error) {
    add({
      name: "native library",
      ok: false,
      found: (error as Error).message,
      fix: "npm run build   (needs g++ and cmake: apt-get install -y g++ cmake)",
    });
  }
  add({
    name: "memory",
    ok: freemem() > 2 ** 30,
    found: `${gibibytes(freemem())} free of ${gibibytes(totalmem())}`,
    fix: "free at least 1 GiB",
  });
  const disk = statfsSync(".");
  add({
    name: "disk here",
    ok: disk.bavail * disk.bsize > 2 ** 30,
    found: `${gibibytes(disk.bavail * disk.bsize)} free`,
    fix: "free at least 1 GiB, or work in another folder",
  });
  const ffmpeg = output("ffmpeg", ["-version"]);
  add({
    name: "ffmpeg",
    ok: ffmpeg !== null,
    found: ffmpeg ?? "not found",
    fix: "apt-get install -y ffmpeg   (only videos need it)",
    optional: true,
  });
  const gpus = output("nvidia-smi", ["--query-gpu=name,memory.total", "--format=csv,noheader"]);
  add({
    name: "NVIDIA GPU",
    ok: gpus !== null,
    found: gpus ?? "none seen",
    fix: "only --device cuda needs one",
    optional: device !== "cuda",
  });
  return checks;
}
