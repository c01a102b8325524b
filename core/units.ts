/** Bytes as text, in GiB. */
export const gibibytes = (bytes: number, digits = bytes < 2 ** 30 ? 2 : 1): string =>
  `${(bytes / 2 ** 30).toFixed(digits)} GiB`;
