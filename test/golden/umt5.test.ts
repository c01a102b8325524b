import { test } from "bun:test";
import { cpu, type TestFunction } from "../harness/device.ts";
import { goldenUmt5 } from "../harness/golden_umt5.ts";

goldenUmt5(cpu, test as TestFunction);
