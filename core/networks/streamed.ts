import type { Pointer } from "../../ffi/call.ts";
import { hostAlloc } from "../../ffi/memory.ts";
import { dtypeBytes, type DType } from "../dtype.ts";
import type { NetParam } from "../models/family.ts";
import { ParamSet, type ParamSource } from "../nn/params.ts";
import type { Device, Tensor } from "../tensor.ts";
import type { Var } from "../tape.ts";

/** Streams and kinds of rcm.h. */
const COMPUTE = 0;
const COPIES = 1;
const UP = 0;
const DOWN = 1;

/** Device memory for the weights of one block, and the events that order its copies with compute. */
interface Slot {
  flat: Tensor;
  /** Parameters by their place in a block; all blocks have the same ones in the same order. */
  vars: readonly Var[];
  /** Block whose weights are here or on their way; -1: none. */
  holds: number;
  /** Recorded on the copy stream behind the block's upload, and on the compute stream behind its last use. */
  uploaded: number;
  used: number;
}

/**
 * Weights of a network whose blocks live in page-locked host memory. Two blocks are on the device: the one that computes and the
 * next, which is copied meanwhile. A block is brought in when the network first asks for one of its parameters, so the graph is the
 * ordinary one and the results are bitwise those of resident weights. For inference: no gradient may be recorded over it.
 */
export class StreamedWeights implements ParamSource, Disposable {
  private readonly outer: NetParam[];
  private readonly blocks: NetParam[][];
  /** Block, and place in it, of every parameter inside the blocks. */
  private readonly places: ReadonlyMap<string, readonly [block: number, place: number]>;
  private readonly names: ReadonlySet<string>;
  private readonly hostOuter: Pointer;
  private readonly hostBlocks: Pointer[];
  private globals: ParamSet | null = null;
  private slots: Slot[] = [];
  private current: Slot | null = null;

  /** `read` fills a part of the parameters from wherever they are stored; it is called for one part after the other. */
  constructor(
    readonly device: Device,
    specs: readonly NetParam[],
    readonly dtype: DType,
    read: (part: ParamSet) => void,
    /** First of the four event numbers that are this one's own. */
    private readonly events = 0,
  ) {
    this.names = new Set(specs.map((s) => s.name));
    this.outer = specs.filter((s) => s.block === null);
    const count = 1 + Math.max(-1, ...specs.map((s) => s.block ?? -1));
    this.blocks = Array.from({ length: count }, (_, i) => specs.filter((s) => s.block === i));
    this.places = new Map(this.blocks.flatMap((part, block) => part.map((s, place) => [s.name, [block, place] as const])));
    const host = (part: NetParam[]): Pointer => hostAlloc(device.lib, this.bytes(part));
    this.hostOuter = host(this.outer);
    this.hostBlocks = this.blocks.map(host);
    const fill = (part: NetParam[], to: Pointer): void => {
      using _scope = device.scope();
      const flat = device.empty([ParamSet.flatSize(part)], dtype).zero();
      read(ParamSet.view(device, part, flat));
      device.lib.eventRecord({ event: this.events, stream: COMPUTE });
      device.lib.streamWait({ stream: COPIES, event: this.events });
      device.lib.copyAsync({ dst: to, src: flat.ptr, bytes: flat.bytes, kind: DOWN });
      device.lib.eventRecord({ event: this.events, stream: COPIES });
      device.lib.eventSync(this.events);
    };
    try {
      fill(this.outer, this.hostOuter);
      this.blocks.forEach((part, i) => fill(part, this.hostBlocks[i]));
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
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

  /** Takes device memory for everything outside the blocks and for two blocks. */
  acquire(): void {
    if (this.resident) return;
    const { device } = this;
    const take = (part: NetParam[]): Tensor => device.persistent(() => device.empty([ParamSet.flatSize(part)], this.dtype));
    const outer = take(this.outer);
    device.lib.eventRecord({
      event: this.events, stream: COMPUTE,
    }); // queued work may still use memory that was handed out again
    device.lib.streamWait({ stream: COPIES, event: this.events });
    device.lib.copyAsync({ dst: outer.ptr, src: this.hostOuter, bytes: outer.bytes, kind: UP });
    device.lib.eventRecord({ event: this.events, stream: COPIES });
    device.lib.streamWait({ stream: COMPUTE, event: this.events });
    this.globals = ParamSet.view(device, this.outer, outer);
    this.slots = Array.from({ length: Math.min(2, this.blocks.length) }, (_, k) => {
      const flat = take(this.blocks[0]);
      const set = ParamSet.view(device, this.blocks[0], flat);
      const slot = { flat, vars: set.names.map((n) => set.get(n)), holds: -1, uploaded: this.events + 2 * k, used: this.events + 2 * k + 1 };
      device.lib.eventRecord({ event: slot.used, stream: COMPUTE });
      return slot;
    });
    this.upload(this.slots[0], 0);
  }

  /** Gives the device memory back; the weights stay on the host. */
  release(): void {
    if (!this.globals) return;
    const { lib } = this.device;
    for (const slot of this.slots) if (slot.holds >= 0) lib.eventSync(slot.uploaded);
    lib.sync();
    this.globals.flat.free();
    this.slots.forEach((s) => s.flat.free());
    [this.globals, this.slots, this.current] = [null, [], null];
    lib.memoryTrim();
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

  /** Makes a block the one that computes and starts the upload of the next into the slot that the last one leaves. */
  private enter(block: number): Slot {
    const { lib } = this.device;
    if (this.current) lib.eventRecord({ event: this.current.used, stream: COMPUTE });
    const slot = this.slots.find((s) => s.holds === block) ?? this.upload(this.slots.find((s) => s !== this.current) ?? this.slots[0], block);
    lib.streamWait({ stream: COMPUTE, event: slot.uploaded });
    const next = (block + 1) % this.blocks.length; // after the last comes the first of the next evaluation
    const other = this.slots.find((s) => s !== slot);
    if (other && other.holds !== next) this.upload(other, next);
    return (this.current = slot);
  }

  private upload(slot: Slot, block: number): Slot {
    const { lib } = this.device;
    lib.streamWait({ stream: COPIES, event: slot.used });
    lib.copyAsync({ dst: slot.flat.ptr, src: this.hostBlocks[block], bytes: slot.flat.bytes, kind: UP });
    lib.eventRecord({ event: slot.uploaded, stream: COPIES });
    slot.holds = block;
    return slot;
  }

  [Symbol.dispose](): void {
    this.release();
    for (const p of [this.hostOuter, ...this.hostBlocks]) this.device.lib.hostFree(p);
  }
}
