/** Values of a pickle as plain data. */

export type PickleValue =
  | null
  | boolean
  | number
  | string
  | PickleValue[]
  | Map<PickleValue, PickleValue>
  | PickleGlobal
  | PickleTensor
  | PickleStorage
  | PickleObject;

/** A global by name. */
export interface PickleGlobal {
  global: string;
}
export interface PickleStorage {
  storage: string;
  dtype: string;
  /** Elements; bytes of an untyped storage. */
  count: number;
  /** First element; above 0 only in legacy files, where a storage can be a part of another one. */
  start: number;
}
export interface PickleTensor {
  tensor: PickleStorage;
  offset: number;
  shape: number[];
  strides: number[];
  /** torch's name of the dtype when the storage has none. */
  dtype: string | null;
}
/** An object as plain data: its class by name, arguments and state. */
export interface PickleObject {
  class: string;
  args: PickleValue[];
  state: PickleValue;
}

export const isMap = (v: unknown): v is Map<PickleValue, PickleValue> => v instanceof Map;
export const isGlobal = (v: unknown): v is PickleGlobal => typeof v === "object" && v !== null && "global" in v;
export const isTensor = (v: unknown): v is PickleTensor => typeof v === "object" && v !== null && "tensor" in v;
export const isObject = (v: unknown): v is PickleObject => typeof v === "object" && v !== null && "class" in v;
export const isCount = (v: PickleValue | undefined): v is number => Number.isSafeInteger(v) && (v as number) >= 0;
export const isCounts = (v: PickleValue | undefined): v is number[] => Array.isArray(v) && v.every(isCount);
