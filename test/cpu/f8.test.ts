import { describe, test } from "bun:test";
import { cpu, type TestFunction } from "../harness/device.ts";
import { f8Checks } from "../harness/f8_checks.ts";

describe("f8 on the CPU", () => f8Checks(cpu, test as TestFunction));
