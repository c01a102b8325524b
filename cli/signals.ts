/** SIGTERM, SIGUSR1 and the first SIGINT ask the work to stop where it can be taken up again; a second SIGINT ends at once. */
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
