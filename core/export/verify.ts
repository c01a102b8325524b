import { closeSync, openSync, readSync } from "node:fs";
import { RcmError } from "../error.ts";
import { isSharded, openCheckpoint } from "../io/checkpoint.ts";
import { WINDOW } from "../io/tensor_stream.ts";
import { digest, window, type OutTensor } from "./convert.ts";

/** Compares the written file by name, dtype, shape and digest. Throws: E_INTERNAL naming the first difference. */
export function verifyWritten(
  root: string,
  tensors: readonly OutTensor[],
  onDone: (bytes: number) => void = () => {},
): void {
  const differs = (what: string, got?: unknown, want?: unknown): RcmError =>
    new RcmError("E_INTERNAL", `${root} reads back differently: ${what}`, { op: "export", got, want });
  const found = openCheckpoint(root).tensors;
  if (found.size !== tensors.length) throw differs("number of tensors", found.size, tensors.length);
  for (const t of tensors) {
    const back = found.get(t.name);
    if (!back || isSharded(back) || back.strides) throw differs(t.name, back ? "in pieces" : "nothing");
    if (back.dtype !== t.dtype || back.shape.join() !== t.shape.join())
      throw differs(t.name, `${back.dtype} [${back.shape}]`, `${t.dtype} [${t.shape}]`);
    const seen = digestOf(back.file, back.offset, back.bytes);
    if (seen !== t.digest()) throw differs(t.name, `digest ${seen}`, `digest ${t.digest()}`);
    onDone(t.bytes);
  }
}

/** Digest of a part of a file; a truncated file gives a different one. */
function digestOf(path: string, offset: number, bytes: number): bigint {
  const fd = openSync(path, "r");
  try {
    let d = 0n;
    for (let at = 0; at < bytes; at += WINDOW) {
      const n = Math.min(WINDOW, bytes - at);
      let got = 0;
      while (got < n) {
        const more = readSync(fd, window, got, n - got, offset + at + got);
        if (more === 0) break;
        got += more;
      }
      d = digest(window.subarray(0, got), d);
    }
    return d;
  } finally {
    closeSync(fd);
  }
}
