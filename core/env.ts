export { env } from "../ffi/env.ts";
