/** What went wrong, as a stable code: the cli maps it to an exit status (see `cli/exit.ts`). */
export type RcmCode =
  | "E_ARG" // a value outside its allowed range
  | "E_SHAPE" // a tensor has the wrong shape
  | "E_DTYPE" // a tensor has the wrong or an unsupported dtype
  | "E_OOM" // memory could not be had
  | "E_NONFINITE" // NaN or infinity where a finite value is required
  | "E_BACKEND" // the native library is missing, too old or failed
  | "E_RECIPE" // a recipe does not follow the schema
  | "E_FORMAT" // a file is not what its name says, or is damaged
  | "E_IO" // the operating system refused a read or a write
  | "E_STATE" // a checkpoint or run folder does not fit the request
  | "E_INTERRUPTED" // stopped by a signal after a checkpoint was written
  | "E_INTERNAL"; // a broken promise inside this program

export interface RcmErrorDetail {
  /** Operation, file or recipe key that raised the error. */
  op: string;
  /** What was found. */
  got?: unknown;
  /** What is allowed. */
  want?: unknown;
  cause?: unknown;
}

/** The only error class of this project: `[op] what happened: want .., got ..`. */
export class RcmError extends Error {
  readonly code: RcmCode;
  readonly op: string;
  readonly got: unknown;
  readonly want: unknown;

  constructor(code: RcmCode, message: string, detail: RcmErrorDetail) {
    const tail = [
      detail.want === undefined ? "" : `want ${show(detail.want)}`,
      detail.got === undefined ? "" : `got ${show(detail.got)}`,
    ].filter(Boolean);
    super(`[${detail.op}] ${message}${tail.length > 0 ? `: ${tail.join(", ")}` : ""}`, { cause: detail.cause });
    this.name = "RcmError";
    this.code = code;
    this.op = detail.op;
    this.got = detail.got;
    this.want = detail.want;
  }
}

function show(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}
