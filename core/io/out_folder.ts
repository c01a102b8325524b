import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { RcmError } from "../error.ts";
import { syncFolder, writeError } from "./out_file.ts";

/**
 * An atomic folder: filled under a temporary name (`at`) in the same parent, renamed by `commit`. Leaving the scope
 * without a commit removes it. Throws: E_ARG when the path exists and may not be replaced; E_IO.
 */
export class AtomicFolder implements Disposable {
  readonly at: string;
  private done = false;

  constructor(
    readonly path: string,
    replace: boolean,
  ) {
    if (existsSync(path) && !replace)
      throw new RcmError("E_ARG", `${path} exists; --force replaces it`, { op: "export" });
    this.at = join(dirname(path), `.${basename(path)}.${process.pid}.tmp`);
    this.attempt(() => {
      rmSync(this.at, { recursive: true, force: true });
      mkdirSync(this.at, { recursive: true });
    });
  }

  private attempt(work: () => void): void {
    try {
      work();
    } catch (cause) {
      throw cause instanceof RcmError ? cause : writeError(this.path, cause);
    }
  }

  commit(): void {
    this.attempt(() => {
      syncFolder(this.at);
      const old = `${this.at}.old`;
      const taken = existsSync(this.path);
      if (taken) renameSync(this.path, old);
      renameSync(this.at, this.path);
      this.done = true;
      if (taken) rmSync(old, { recursive: true, force: true });
      syncFolder(dirname(this.path));
    });
  }

  [Symbol.dispose](): void {
    if (!this.done) rmSync(this.at, { recursive: true, force: true });
  }
}
