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
  const add = (name: string, ok: boolean, found: string, fix: string, optional = false): void =>
    void checks.push({ name, ok, optional, found, fix: ok ? "" : fix });
  add("bun", true, Bun.version, "");
  try {
    using opened = Device.open({ device });
    const { info, path, kind } = opened.backend;
    add("native library", true, `${path} (${kind}, ${info.isa})`, "");
    add(
      "processor variant",
      info.isa === info.best_isa || kind === "cuda",
      `${info.isa}, best ${info.best_isa}`,
      "npm run build",
      true,
    );
    add("threads", info.threads > 0, String(info.threads), "");
    if (info.cudnn)
      add(
        "cuDNN",
        !info.cudnn.startsWith("none"),
        info.cudnn,
        "pip install nvidia-cudnn-cu13, or set RCM_CUDA_LIBS to its folder   (without it some attention shapes are slower)",
        true,
      );
    add(
      "BLAS",
      info.blas !== "built-in",
      info.blas,
      "apt-get install -y libopenblas0-pthread   (matmul is several times slower without)",
      true,
    );
  } catch (error) {
    add(
      "native library",
      false,
      (error as Error).message,
      "npm run build   (needs g++ and cmake: apt-get install -y g++ cmake)",
    );
  }
  add("memory", freemem() > 2 ** 30, `${gibibytes(freemem())} free of ${gibibytes(totalmem())}`, "free at least 1 GiB");
  const disk = statfsSync(".");
  add(
    "disk here",
    disk.bavail * disk.bsize > 2 ** 30,
    `${gibibytes(disk.bavail * disk.bsize)} free`,
    "free at least 1 GiB, or work in another folder",
  );
  const ffmpeg = output("ffmpeg", ["-version"]);
  add("ffmpeg", ffmpeg !== null, ffmpeg ?? "not found", "apt-get install -y ffmpeg   (only videos need it)", true);
  const gpus = output("nvidia-smi", ["--query-gpu=name,memory.total", "--format=csv,noheader"]);
  add("NVIDIA GPU", gpus !== null, gpus ?? "none seen", "only --device cuda needs one", device !== "cuda");
  return checks;
}
