/** Signatures and limits of zip archives. */
export const LOCAL_HEADER = 0x04034b50;
export const CENTRAL_HEADER = 0x02014b50;
export const END_RECORD = 0x06054b50;
export const ZIP64_END_RECORD = 0x06064b50;
export const ZIP64_LOCATOR = 0x07064b50;
/** A count of this value is in the zip64 record instead. */
export const MAX_U16 = 0xffff;
/** A size or offset of this value is in the zip64 field instead. */
export const MAX_U32 = 0xffffffff;
