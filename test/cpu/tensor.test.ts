import { expect, test } from "bun:test";
import { Device } from "../../core/tensor.ts";

test("a closed device has freed its tensors and allocates no more", () => {
  const device = Device.open({ device: "cpu", threads: 1 });
  const before = device.memory().current;
  device.persistent(() => device.zeros([256], "f32"));
  device[Symbol.dispose]();
  expect(device.memory().current).toBe(before);
  expect(() => device.empty([1], "f32")).toThrow(expect.objectContaining({ code: "E_INTERNAL" }));
});
