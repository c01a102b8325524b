import type { Pointer } from "../ffi/call.ts";
import { hostAlloc } from "../ffi/memory.ts";
import type { Device, Tensor } from "./tensor.ts";

/** Device streams: ops run on "compute"; "copies" is ordered with it by events only. */
export type StreamName = "compute" | "copies";

/** Stream codes of rcm.h. */
const STREAM: Record<StreamName, number> = { compute: 0, copies: 1 };
const [TO_DEVICE, TO_HOST] = [0, 1];

/** A device event. The backend has 64, identified by `index`. */
export class StreamEvent {
  constructor(
    readonly device: Device,
    readonly index: number,
  ) {}

  /** Blocks the host until the event has completed. Throws: E_ARG if it was never recorded. */
  sync(): void {
    this.device.lib.eventSync(this.index);
  }
}

/** One of the device's two streams. */
export class Stream {
  private readonly code: number;
  constructor(
    readonly device: Device,
    readonly name: StreamName,
  ) {
    this.code = STREAM[name];
  }

  /** Records the event after all work queued on the stream so far. */
  record(event: StreamEvent): void {
    this.device.lib.eventRecord({ event: event.index, stream: this.code });
  }

  /** Work queued on the stream from now on waits for the event. Throws: E_ARG if it was never recorded. */
  wait(event: StreamEvent): void {
    this.device.lib.streamWait({ stream: this.code, event: event.index });
  }
}

/** Page-locked host memory; its copies run on the stream "copies", concurrently with compute. */
export class PinnedMemory {
  private readonly ptr: Pointer;

  /** Throws: E_OOM. */
  constructor(
    readonly device: Device,
    readonly bytes: number,
  ) {
    this.ptr = hostAlloc(device.lib, bytes);
  }

  /**
   * Queues a copy into `to`. Neither buffer may be freed or reused before an event recorded after the copy completes.
   */
  upload(to: Tensor): void {
    this.device.lib.copyAsync({ dst: to.ptr, src: this.ptr, bytes: to.bytes, kind: TO_DEVICE });
  }

  /** Queues a copy from `from`, under the same rule. */
  download(from: Tensor): void {
    this.device.lib.copyAsync({ dst: this.ptr, src: from.ptr, bytes: from.bytes, kind: TO_HOST });
  }

  /** Call only after every copy that uses this memory has completed. */
  free(): void {
    this.device.lib.hostFree(this.ptr);
  }
}

/** A captured CUDA graph: recorded calls that are launched as one. GPU only. */
export class Graph {
  constructor(
    readonly device: Device,
    private readonly id: number,
  ) {}

  launch(): void {
    this.device.lib.graphLaunch(this.id);
  }

  free(): void {
    this.device.lib.graphFree(this.id);
  }
}

/** Memory pool of captured graphs; they must be launched in the order of their capture. GPU only. */
export class GraphMemory {
  private readonly out = new BigInt64Array(new ArrayBuffer(8));
  private readonly id: number;

  constructor(readonly device: Device) {
    device.lib.graphMemory(this.out);
    this.id = Number(this.out[0]);
  }

  /** Captures the calls that `body` makes, without running them. */
  record(body: () => void): Graph {
    this.device.lib.graphBegin(this.id);
    try {
      body();
    } finally {
      this.device.lib.graphEnd(this.out);
    }
    return new Graph(this.device, Number(this.out[0]));
  }

  free(): void {
    this.device.lib.graphMemoryFree(this.id);
  }
}
