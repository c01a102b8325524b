export { unpickle, type PickleValue } from "./unpickle.ts";

/** Writes a state dict (or one tensor) as protocol-2 pickle that torch.load(weights_only=True) reads. */
export class TensorPickler {
  private readonly parts: number[] = [0x80, 2];

  private text(s: string): void {
    const bytes = new TextEncoder().encode(s);
    this.parts.push(0x58, ...u32(bytes.length), ...bytes);
  }
  private int(v: number): void {
    if (v < 256) this.parts.push(0x4b, v);
    else if (v < 65536) this.parts.push(0x4d, v & 255, v >> 8);
    else if (v <= 0x7fffffff) this.parts.push(0x4a, ...u32(v));
    else {
      const bytes: number[] = [];
      for (let rest = BigInt(v); rest > 0n; rest >>= 8n) bytes.push(Number(rest & 255n));
      if (bytes[bytes.length - 1] >= 128) bytes.push(0);
      this.parts.push(0x8a, bytes.length, ...bytes);
    }
  }
  private tuple(values: readonly number[]): void {
    this.parts.push(0x28);
    for (const v of values) this.int(v);
    this.parts.push(0x74);
  }
  private line(module: string, member: string): void {
    this.parts.push(0x63, ...new TextEncoder().encode(`${module}\n${member}\n`));
  }
  private emptyDict(): void {
    this.line("collections", "OrderedDict");
    this.parts.push(0x29, 0x52);
  }

  tensor(storage: string, dtype: string, shape: readonly number[]): void {
    const strides = shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1));
    this.line("torch._utils", "_rebuild_tensor_v2");
    this.parts.push(0x28, 0x28);
    this.text("storage");
    this.line("torch", `${dtype}Storage`);
    this.text(storage);
    this.text("cpu");
    this.int(shape.reduce((a, b) => a * b, 1));
    this.parts.push(0x74, 0x51);
    this.int(0);
    this.tuple(shape);
    this.tuple(strides);
    this.parts.push(0x89);
    this.emptyDict();
    this.parts.push(0x74, 0x52);
  }

  dict(entries: (() => [string, () => void])[]): void {
    this.emptyDict();
    this.parts.push(0x28);
    for (const entry of entries) {
      const [key, value] = entry();
      this.text(key);
      value();
    }
    this.parts.push(0x75);
  }

  end(): Uint8Array {
    return Uint8Array.from([...this.parts, 0x2e]);
  }
}

const u32 = (v: number): number[] => [v & 255, (v >>> 8) & 255, (v >>> 16) & 255, (v >>> 24) & 255];
