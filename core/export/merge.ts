import { numel } from "../dtype.ts";
import { RcmError } from "../error.ts";
import type { SourceTensor, ExportSource } from "./source.ts";

export interface MergeReport {
  merged: number;
  /** Unchanged tensors of the target, with the reason. */
  kept: { name: string; why: string }[];
  /** Tensors of the student that the target lacks. */
  unused: string[];
}

/**
 * W = W_target + weight (W_student - W_base) for tensors with the same shape in all three; the others are copied from
 * the target. The difference is computed first, in f32, so a student equal to its base changes nothing.
 * Throws: E_FORMAT when no tensor is in all three.
 */
export function mergeSources(
  target: ExportSource,
  student: ExportSource,
  base: ExportSource,
  weight: number,
): { source: ExportSource; report: MergeReport } {
  const report: MergeReport = {
    merged: 0,
    kept: [],
    unused: [...student.tensors.keys()].filter((n) => !target.tensors.has(n)),
  };
  const tensors = new Map<string, SourceTensor>();
  for (const [name, t] of target.tensors) {
    const [s, b] = [student.tensors.get(name), base.tensors.get(name)];
    const why = !s ? "not in the student" : !b ? "not in the base" : reason(t, s, b);
    if (why !== null || !s || !b) {
      report.kept.push({ name, why: why as string });
      tensors.set(name, t);
      continue;
    }
    report.merged++;
    tensors.set(name, {
      ...t,
      // The sum is kept in f32, so that it is rounded only once, when it is stored.
      dtype: "f32",
      load(device, dtype) {
        const out = t.load(device, "f32");
        using scope = device.scope();
        const difference = s.load(device, "f32").axpy(b.load(device, "f32"), -1);
        out.axpy(difference, weight);
        return dtype === "f32" ? out : scope.keep(out.to(dtype));
      },
    });
  }
  if (report.merged === 0)
    throw new RcmError("E_FORMAT", "no tensor of target, student and base agrees in name and shape", {
      op: "export",
      got: report.kept.slice(0, 3),
    });
  return { source: { ...target, tensors }, report };
}

/** Conv3d and linear forms of a patch embedding agree when rows and count do. */
function reason(...[t, s, b]: SourceTensor[]): string | null {
  const flat = (x: SourceTensor): string => `${x.shape[0] ?? 1}x${numel(x.shape)}`;
  return flat(t) === flat(s) && flat(t) === flat(b)
    ? null
    : `shapes [${t.shape}], student [${s.shape}], base [${b.shape}]`;
}
