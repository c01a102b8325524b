/**
 * Every environment variable that TypeScript reads. The native library reads a few more; README lists all of them. Each
 * property reads its variable on access, so hot code should read it once.
 */

/** An empty variable counts as absent. */
const text = (name: string): string | null => process.env[name] || null;

export const env = {
  /** RCM_LIB_DIR: the only folder searched for the native libraries. */
  get libraryFolder(): string | null {
    return text("RCM_LIB_DIR");
  },
  /** RCM_ISA: the instruction set of the CPU library, instead of the best that the processor supports. */
  get isa(): string | null {
    return text("RCM_ISA");
  },
  /**
   * RCM_CHECK_FINITE=1: training checks the output of every op for NaN and infinity, and names the first op with any.
   */
  get checkFinite(): boolean {
    return process.env.RCM_CHECK_FINITE === "1";
  },
  /** RCM_FFMPEG: the ffmpeg that writes mp4 files, instead of the one on PATH. */
  get ffmpeg(): string | null {
    return text("RCM_FFMPEG");
  },
  /** RCM_DEBUG=1: every error is printed with its stack. */
  get stacks(): boolean {
    return process.env.RCM_DEBUG === "1";
  },
  /** NO_COLOR, set to anything: no colours. */
  get noColor(): boolean {
    return process.env.NO_COLOR !== undefined;
  },
  /** CI, set to anything: progress is printed in lines, without redrawing. */
  get ci(): boolean {
    return process.env.CI !== undefined;
  },
  /** A variable that a recipe names as ${NAME}. */
  variable: text,
};
