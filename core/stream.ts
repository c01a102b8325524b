import type { Pointer } from "../ffi/call.ts";
import { hostAlloc } from "../ffi/memory.ts";
import type { Device, Tensor } from "./tensor.ts";

/** Queues of work on the device: ops run on "compute"; "copies" runs in no order with it but that of events. */
export type StreamName = "compute" | "copies";

/** Numbers of rcm.h. */
const STREAM: Record<StreamName, number> = { compute: 0, copies: 1 };
const [TO_DEVICE, TO_HOST] = [0, 1];

/** A point in a stream's work. The backend has 64, told apart by `index`. */
export class StreamEvent {
  constructor(
    readonly device: Device,
    readonly index: number,
  ) {}

  /** The caller waits until the stream has passed the point. Throws: E_ARG if it was never recorded. */
  sync(): void {
    this.device.lib.eventSync(this.index);
  }
}

/** One of the device's two queues of work. */
export class Stream {
  private readonly code: number;
  constructor(
    readonly device: Device,
    readonly name: StreamName,
  ) {
    this.code = STREAM[name];
  }

  /** Moves the event to the end of what the stream has been given so far. */
  record(event: StreamEvent): void {
    this.device.lib.eventRecord({ event: event.index, stream: this.code });
  }

  /** What the stream is given from now on starts after the event. Throws: E_ARG if it was never recorded. */
  wait(event: StreamEvent): void {
    this.device.lib.streamWait({ stream: this.code, event: event.index });
  }
}

/** Page-locked host memory: copies between it and the device run on the stream "copies", beside compute. */
export class PinnedMemory {
  private readonly ptr: Pointer;

  /** Throws: E_OOM. */
  constructor(
    readonly device: Device,
    readonly bytes: number,
  ) {
    this.ptr = hostAlloc(device.lib, bytes);
  }

  /** Queues a copy into `to`. Neither side may be freed or reused before an event recorded after it. */
  upload(to: Tensor): void {
    this.device.lib.copyAsync({ dst: to.ptr, src: this.ptr, bytes: to.bytes, kind: TO_DEVICE });
  }

  /** Queues a copy from `from`; as upload. */
  download(from: Tensor): void {
    this.device.lib.copyAsync({ dst: this.ptr, src: from.ptr, bytes: from.bytes, kind: TO_HOST });
  }

  /** The caller has waited for copies that still use it. */
  free(): void {
    this.device.lib.hostFree(this.ptr);
  }
}

/** Calls that were recorded and are queued as one. GPU only. */
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

/** Device memory for what recorded calls allocate; its graphs run in the order of their recording. GPU only. */
export class GraphMemory {
  private readonly out = new BigInt64Array(new ArrayBuffer(8));
  private readonly id: number;

  constructor(readonly device: Device) {
    device.lib.graphMemory(this.out);
    this.id = Number(this.out[0]);
  }

  /** Records the calls that `body` makes; they do not run. */
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
