import { MemoryFile } from "../../core/io/out_file.ts";
import { members, readAt, withFile } from "../../core/io/tar.ts";
import { ZipWriter } from "../../core/io/torch_zip.ts";

/** The regular files of a tar; `offset` is the byte of the member's header. */
export const readTar = (path: string): { name: string; offset: number; data: Uint8Array }[] =>
  withFile(path, (fd, size) =>
    Array.from(members(fd, path, size), (m) => ({
      name: m.name, offset: m.offset, data: readAt(fd, path, m.start, m.size),
    })),
  );

/** A stored (uncompressed) zip archive in memory. */
export function writeZip(entries: [string, Uint8Array][]): Uint8Array {
  const file = new MemoryFile();
  const zip = new ZipWriter(file);
  for (const [name, data] of entries) zip.member(name, data.length, [data]);
  zip.end();
  return file.contents;
}
