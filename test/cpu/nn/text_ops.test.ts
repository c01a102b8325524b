import { expect, test } from "bun:test";
import { biasAttention, embedding, relativeBias } from "../../../core/ops/nondiff/text.ts";
import { cpu } from "../../harness/device.ts";

test("ids and lengths outside their range are named", () => {
  using _scope = cpu().scope();
  const table = cpu().zeros([4, 8], "f32");
  const ids = (...v: number[]) => cpu().fromValues(v, [v.length], "i32");
  expect(() => embedding(table, ids(1, 4), "f32")).toThrow("ids: want [0,4), got 4 at 1");
  expect(() => relativeBias(table, ids(-1), "f32")).toThrow("bucket: want [0,4), got -1 at 0");
  const q = cpu().zeros([1, 4, 8], "f32");
  expect(() => biasAttention({ q: q, k: q, v: q }, cpu().zeros([2, 7], "f32"), ids(5), 1)).toThrow(
    "lengths: want [0,4], got 5",
  );
});
