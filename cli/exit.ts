import { RcmError, type RcmCode } from "../core/error.ts";

/** Exit statuses; batch scripts rely on them. */
export const EXIT = {
  ok: 0,
  usage: 2,
  data: 3,
  memory: 4,
  nonfinite: 5,
  backend: 6,
  internal: 70,
  interrupted: 75,
} as const;

const BY_CODE: Record<RcmCode, number> = {
  E_ARG: EXIT.usage,
  E_RECIPE: EXIT.usage,
  E_FORMAT: EXIT.data,
  E_IO: EXIT.data,
  E_STATE: EXIT.data,
  E_SHAPE: EXIT.data,
  E_DTYPE: EXIT.data,
  E_OOM: EXIT.memory,
  E_NONFINITE: EXIT.nonfinite,
  E_BACKEND: EXIT.backend,
  E_INTERRUPTED: EXIT.interrupted,
  E_INTERNAL: EXIT.internal,
};

export const EXIT_HELP =
  "Exit status: 0 done; 2 wrong usage or recipe; 3 a file or its data; 4 out of memory; 5 NaN or infinity; " +
  "6 native library; 75 stopped by a signal after a checkpoint (run again with --resume); 70 a bug.";

export const exitOf = (error: unknown): number => (error instanceof RcmError ? BY_CODE[error.code] : EXIT.internal);
