import { closeSync, mkdirSync, openSync, readSync, rmSync, writeSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { dtypeBytes, numel, type DType } from "../dtype.ts";
import { writeError } from "./out_file.ts";
import { WINDOW, type TensorStream } from "./tensor_stream.ts";

/** Buffers tensors in a temporary file next to the output until all are known; removed at the end of the scope. */
export class Spool implements Disposable {
  private readonly path: string;
  private readonly fd: number;
  private at = 0;

  constructor(out: string) {
    this.path = join(dirname(out), `.${basename(out)}.${process.pid}.spool.tmp`);
    try {
      mkdirSync(dirname(out), { recursive: true });
      this.fd = openSync(this.path, "w+", 0o600);
    } catch (cause) {
      throw writeError(this.path, cause);
    }
  }

  /** Stores a tensor and returns a stream that reads it back. Throws: E_IO. */
  put(name: string, dtype: DType, shape: readonly number[], chunks: Iterable<Uint8Array>): TensorStream {
    const { fd, path } = this;
    const from = this.at;
    try {
      for (const chunk of chunks) for (let done = 0; done < chunk.length; ) {
        const n = writeSync(fd, chunk, done, chunk.length - done, this.at);
        done += n;
        this.at += n;
      }
    } catch (cause) {
      throw writeError(path, cause);
    }
    const bytes = numel(shape) * dtypeBytes(dtype);
    return {
      name, dtype, shape, bytes,
      *chunks() {
        const buffer = new Uint8Array(new ArrayBuffer(Math.min(WINDOW, bytes)));
        for (let done = 0; done < bytes; ) {
          const n = Math.min(WINDOW, bytes - done);
          for (let got = 0; got < n; ) {
            const more = readSync(fd, buffer, got, n - got, from + done + got);
            if (more === 0) throw writeError(path, new Error("the temporary file was cut"));
            got += more;
          }
          yield buffer.subarray(0, n);
          done += n;
        }
      },
    };
  }

  [Symbol.dispose](): void {
    closeSync(this.fd);
    rmSync(this.path, { force: true });
  }
}
