/** SIGTERM, SIGUSR1 and the first SIGINT request a stop at the next resumable point; a second SIGINT exits at once. */
export function stopSignals(): { requested: () => boolean; restore: () => void } {
  let requested = false;
  const on = (signal: string): void => {
    if (requested && signal === "SIGINT") process.exit(130);
    requested = true;
  };
  const signals = ["SIGTERM", "SIGUSR1", "SIGINT"] as const;
  for (const s of signals) process.on(s, on);
  return { requested: () => requested, restore: () => signals.forEach((s) => process.removeListener(s, on)) };
}
