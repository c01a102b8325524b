/** SIGTERM, SIGUSR1 and the first SIGINT request a stop at the next resumable point; a second SIGINT exits at once. */
export function stopSignals(): { asked: () => boolean; restore: () => void } {
  let asked = false;
  const on = (signal: string): void => {
    if (asked && signal === "SIGINT") process.exit(130);
    asked = true;
  };
  const signals = ["SIGTERM", "SIGUSR1", "SIGINT"] as const;
  for (const s of signals) process.on(s, on);
  return { asked: () => asked, restore: () => signals.forEach((s) => process.removeListener(s, on)) };
}
