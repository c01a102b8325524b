/** Edits (insert, delete, replace, swap neighbours) between two words. Source: optimal string alignment distance. */
export function editDistance(a: string, b: string): number {
  const d = Array.from({ length: a.length + 1 }, (_, i) => [i, ...new Array<number>(b.length).fill(0)]);
  for (let j = 1; j <= b.length; j++) d[0][j] = j;
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      d[i][j] = Math.min(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        d[i][j] = Math.min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.length][b.length];
}

/** The allowed word that was probably meant, or null. */
export function nearest(word: string, allowed: readonly string[]): string | null {
  const ranked = allowed
    .map((w) => ({ w, d: editDistance(word.toLowerCase(), w.toLowerCase()) }))
    .sort((a, b) => a.d - b.d);
  const best = ranked[0];
  return best && best.d <= Math.max(1, Math.floor(word.length / 3)) ? best.w : null;
}

export const didYouMean = (word: string, allowed: readonly string[]): string => {
  const meant = nearest(word, allowed);
  return meant === null ? "" : ` (did you mean "${meant}"?)`;
};
