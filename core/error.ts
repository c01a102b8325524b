export { RcmError, type RcmCode, type RcmErrorDetail } from "../ffi/error.ts";
