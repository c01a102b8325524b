import { existsSync, readFileSync } from "node:fs";

/**
 * Prints "N passed, N failed, N skipped" of a junit file; exits 1 on any failure, a failed runner, or no test at all.
 */
const [path, status] = process.argv.slice(2);
const xml = existsSync(path) ? readFileSync(path, "utf8") : "";
const head = /<testsuites\b[^>]*>/.exec(xml)?.[0] ?? "";
const of = (name: string): number => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(head)?.[1] ?? 0);
const [tests, failed, skipped] = [of("tests"), of("failures") + of("errors"), of("skipped")];
const broken = Number(status) !== 0 && failed === 0 ? 1 : 0;
console.log(`${tests - failed - skipped} passed, ${failed + broken} failed, ${skipped} skipped`);
process.exit(failed + broken > 0 || tests === 0 ? 1 : 0);
