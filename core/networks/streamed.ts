import { dtypeBytes, type DType } from "../dtype.ts";
import type { NetParam } from "../models/family.ts";
import { ParamSet, type ParamSource } from "../nn/params.ts";
import { PinnedMemory, Stream, StreamEvent } from "../stream.ts";
import type { Device, Tensor } from "../tensor.ts";
import type { Var } from "../tape.ts";

/** Device memory for the weights of one block, and the events that order its uploads and compute. */
interface Slot {
  flat: Tensor;
  /** Parameters by their index in a block; all blocks have the same parameters in the same order. */
  vars: readonly Var[];
  /** Block whose weights are uploaded or being uploaded; -1: none. */
  holds: number;
  /** Recorded on the copy stream after the block's upload, and on the compute stream after its last use. */
  uploaded: StreamEvent;
  used: StreamEvent;
}

/**
 * Weights of a network whose blocks are in page-locked host memory. Two blocks are on the device: the one that computes
 * and the next, which is uploaded meanwhile. A block is uploaded when the network first reads one of its parameters, so
 * graph and results are bitwise those of resident weights. For inference only: gradients are not supported.
 */
export class StreamedWeights implements ParamSource, Disposable {
  private readonly outer: NetParam[];
  private readonly blocks: NetParam[][];
  /** Block index, and index within the block, of every parameter of the blocks. */
  private readonly places: ReadonlyMap<string, readonly [block: number, place: number]>;
  private readonly names: ReadonlySet<string>;
  private readonly hostOuter: PinnedMemory;
  private readonly hostBlocks: PinnedMemory[];
  private readonly compute: Stream;
  private readonly copies: Stream;
  /** Two events for each slot; the first also orders copies outside of the slots. */
  private readonly events: StreamEvent[];
  private globals: ParamSet | null = null;
  private slots: Slot[] = [];
  private current: Slot | null = null;

  /** `read` fills a part of the parameters from storage; it is called for each part in turn. */
  constructor(
    readonly device: Device,
    specs: readonly NetParam[],
    readonly dtype: DType,
    read: (part: ParamSet) => void,
    /** First of four unused event numbers. */
    firstEvent = 0,
  ) {
    this.compute = new Stream(device, "compute");
    this.copies = new Stream(device, "copies");
    this.events = [0, 1, 2, 3].map((k) => new StreamEvent(device, firstEvent + k));
    this.names = new Set(specs.map((s) => s.name));
    this.outer = specs.filter((s) => s.block === null);
    const count = 1 + Math.max(-1, ...specs.map((s) => s.block ?? -1));
    this.blocks = Array.from({ length: count }, (_, i) => specs.filter((s) => s.block === i));
    this.places = new Map(
      this.blocks.flatMap((part, block) => part.map((s, place) => [s.name, [block, place] as const])),
    );
    const host = (part: NetParam[]): PinnedMemory => new PinnedMemory(device, this.bytes(part));
    this.hostOuter = host(this.outer);
    this.hostBlocks = this.blocks.map(host);
    const fill = (part: NetParam[], to: PinnedMemory): void => {
      using _scope = device.scope();
      const flat = device.empty([ParamSet.flatSize(part)], dtype).zero();
      read(ParamSet.view(device, part, flat));
      this.afterCompute();
      to.download(flat);
      this.copies.record(this.events[0]);
      this.events[0].sync();
    };
    try {
      fill(this.outer, this.hostOuter);
      this.blocks.forEach((part, i) => fill(part, this.hostBlocks[i]));
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Later work of the copy stream starts after the compute work queued so far. */
  private afterCompute(): void {
    this.compute.record(this.events[0]);
    this.copies.wait(this.events[0]);
  }

  private bytes(part: NetParam[]): number {
    return ParamSet.flatSize(part) * dtypeBytes(this.dtype);
  }

  /** Host bytes held. */
  get hostBytes(): number {
    return [this.outer, ...this.blocks].reduce((n, part) => n + this.bytes(part), 0);
  }

  get resident(): boolean {
    return this.globals !== null;
  }

  /** Allocates device memory for the parameters outside of blocks and for two blocks. */
  acquire(): void {
    if (this.resident) return;
    const { device } = this;
    const take = (part: NetParam[]): Tensor =>
      device.persistent(() => device.empty([ParamSet.flatSize(part)], this.dtype));
    const outer = take(this.outer);
    this.afterCompute(); // queued work may still use memory that the allocator reused
    this.hostOuter.upload(outer);
    this.copies.record(this.events[0]);
    this.compute.wait(this.events[0]);
    this.globals = ParamSet.view(device, this.outer, outer);
    this.slots = Array.from({ length: Math.min(2, this.blocks.length) }, (_, k) => {
      const flat = take(this.blocks[0]);
      const set = ParamSet.view(device, this.blocks[0], flat);
      const [uploaded, used] = this.events.slice(2 * k);
      this.compute.record(used);
      return { flat, vars: set.names.map((n) => set.get(n)), holds: -1, uploaded, used };
    });
    this.upload(this.slots[0], 0);
  }

  /** Frees the device memory; the weights stay on the host. */
  release(): void {
    if (!this.globals) return;
    for (const slot of this.slots) if (slot.holds >= 0) slot.uploaded.sync();
    this.device.sync();
    this.globals.flat.free();
    this.slots.forEach((s) => s.flat.free());
    [this.globals, this.slots, this.current] = [null, [], null];
    this.device.trim();
  }

  get(name: string): Var {
    if (!this.globals) this.acquire();
    const found = this.places.get(name);
    if (!found) return (this.globals as ParamSet).get(name);
    const [block, place] = found;
    const slot = this.current?.holds === block ? this.current : this.enter(block);
    return slot.vars[place];
  }

  has(name: string): boolean {
    return this.names.has(name);
  }

  /** Makes a block the current one and starts to upload the next into the slot of the previous one. */
  private enter(block: number): Slot {
    if (this.current) this.compute.record(this.current.used);
    const free = this.slots.find((s) => s !== this.current) ?? this.slots[0];
    const slot = this.slots.find((s) => s.holds === block) ?? this.upload(free, block);
    this.compute.wait(slot.uploaded);
    const next = (block + 1) % this.blocks.length; // wraps around to the next evaluation
    const other = this.slots.find((s) => s !== slot);
    if (other && other.holds !== next) this.upload(other, next);
    return (this.current = slot);
  }

  private upload(slot: Slot, block: number): Slot {
    this.copies.wait(slot.used);
    this.hostBlocks[block].upload(slot.flat);
    this.copies.record(slot.uploaded);
    slot.holds = block;
    return slot;
  }

  [Symbol.dispose](): void {
    this.release();
    for (const memory of [this.hostOuter, ...this.hostBlocks]) memory.free();
  }
}
