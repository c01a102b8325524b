import { test } from "bun:test";
import { cpu, type TestFunction } from "../harness/device.ts";
import { pixelChecks } from "../harness/pixels.ts";

pixelChecks(cpu, test as TestFunction);
