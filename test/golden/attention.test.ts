import { test } from "bun:test";
import { cpu, type TestFunction } from "../harness/device.ts";
import { goldenAttention } from "../harness/golden_attention.ts";

goldenAttention(cpu, test as TestFunction);
