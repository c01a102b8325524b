import { createConsola } from "consola";
import type { OnTruncated, Truncated } from "../core/text/embedder.ts";
import { env } from "../core/env.ts";

/** Messages go to stderr, results to stdout; colour and redrawing only where a person looks. */
const person = process.stderr.isTTY === true && !env.noColor && !env.ci;

export const log = createConsola({
  stdout: process.stderr,
  stderr: process.stderr,
  formatOptions: { date: false, colors: person, compact: true },
});

export interface Progress {
  /** Shows a state; on a terminal it redraws one line, else it prints only every `every`-th. */
  update(done: number, total: number, text: string, every?: number): void;
  /** Prints a line below the progress line. */
  line(text: string): void;
  end(): void;
}

const bar = (done: number, total: number, width = 24): string => {
  const filled = Math.round((width * done) / Math.max(1, total));
  return `${"█".repeat(filled)}${"░".repeat(width - filled)}`;
};

export function progress(quiet: boolean): Progress {
  if (quiet) return { update() {}, line() {}, end() {} };
  let open = false;
  const close = (): void => {
    if (open) process.stderr.write("\n");
    open = false;
  };
  return {
    update(done, total, text, every = 1) {
      if (person) {
        process.stderr.write(`\r\x1b[2K${bar(done, total)} ${done}/${total} ${text}`);
        open = true;
      } else if (done % every === 0 || done === total) process.stderr.write(`${done}/${total} ${text}\n`);
    },
    line(text) {
      close();
      process.stderr.write(`${text}\n`);
    },
    end: close,
  };
}

/** Prints the result: JSON if requested, else the text. */
export function result(json: boolean, value: unknown, text: string): void {
  process.stdout.write(json ? `${JSON.stringify(value)}\n` : `${text}\n`);
}

export const seconds = (s: number): string =>
  s < 90 ? `${s.toFixed(1)} s` : s < 5400 ? `${(s / 60).toFixed(1)} min` : `${(s / 3600).toFixed(1)} h`;
export const rateOf = (bytes: number, s: number): string => `${(bytes / 1e9 / Math.max(s, 1e-9)).toFixed(2)} GB/s`;

/** How weights are loaded: all of them or not at all; with --allow-partial, warns of those that do not fit. */
export const loading = (allowPartial: boolean): { allowPartial: boolean; onPartial: (text: string) => void } => ({
  allowPartial,
  onPartial: (text) => log.warn(text),
});

/** Warns of prompts that are cut, and lists them for the result. */
export function truncations(): { truncated: Truncated[]; onTruncated: OnTruncated } {
  const truncated: Truncated[] = [];
  return {
    truncated,
    onTruncated(t) {
      truncated.push(t);
      const start = `${t.prompt.slice(0, 60)}${t.prompt.length > 60 ? "..." : ""}`;
      log.warn(`a prompt of ${t.tokens} tokens is cut to ${t.kept}: "${start}"`);
    },
  };
}

export const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(bytes < 2 ** 20 * 10 ? 1 : 0)} MiB`;
