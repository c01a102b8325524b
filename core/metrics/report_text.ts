import {
  bestRows,
  COLUMNS,
  formatCount,
  heading,
  orderedRows,
  type EvalReport,
  type EvalRow,
  type RowKind,
} from "./report_rows.ts";

/** All figures as an aligned plain-text table for terminals; `*` marks the best student of each column. */
export function renderTable(report: EvalReport): string {
  const rows = cells(report, (text, best) => (best ? `${text}*` : `${text} `), printable);
  const widths = rows[0].map((_, c) => Math.max(...rows.map((row) => [...row[c]].length)));
  const line = (row: string[]) => row.map((cell, c) => pad(cell, widths[c], c === 0)).join("  ").trimEnd();
  const rule = widths.map((width) => "─".repeat(width)).join("  ");
  return `${[line(rows[0]), rule, ...rows.slice(1).map(line)].join("\n")}\n`;
}

/** Title, table and provenance as GitHub Markdown; the best student of each column is bold. */
export function renderMarkdown(report: EvalReport): string {
  const rows = cells(report, (text, best) => (best ? `**${text}**` : text), escapeMarkdown);
  const line = (row: string[]) => `| ${row.join(" | ")} |`;
  const samples = `${formatCount(report.realCount)} real, ${formatCount(report.fakeCount)} generated samples a row`;
  const facts = [
    `Recipe ${escapeMarkdown(report.recipe)} (${escapeMarkdown(report.recipeHash)})`,
    `${escapeMarkdown(report.dataset)}: ${samples}`,
    `${escapeMarkdown(report.device)}, ${escapeMarkdown(report.created)}`,
  ];
  const parts = [
    `### ${escapeMarkdown(report.title)}`,
    [line(rows[0]), line(rows[0].map((_, c) => (c === 0 ? "---" : "---:"))), ...rows.slice(1).map(line)].join("\n"),
    `${facts.join(". ")}.`,
    codeBlock(report.command),
  ];
  if (report.notes.length > 0) parts.push(report.notes.map((note) => `- ${escapeMarkdown(note)}`).join("\n"));
  return `${parts.join("\n\n")}\n`;
}

/** Heading row and one row of texts for each table line. */
function cells(
  report: EvalReport,
  mark: (text: string, best: boolean) => string,
  clean: (text: string) => string,
): string[][] {
  const best = COLUMNS.map((column) => bestRows(column, report.rows));
  const head = ["Method", ...COLUMNS.map((column) => mark(heading(column), false))];
  const body = orderedRows(report).map(({ row, kind }) => [
    clean(nameOf(row, kind)),
    ...COLUMNS.map((column, c) => mark(column.text(row), best[c].has(row))),
  ]);
  return [head, ...body];
}

function nameOf(row: EvalRow, kind: RowKind): string {
  return kind === "student" || row.name.toLowerCase() === kind ? row.name : `${row.name} (${kind})`;
}

function pad(text: string, width: number, left: boolean): string {
  const space = " ".repeat(width - [...text].length);
  return left ? text + space : space + text;
}

/** Removes control characters, so that a name cannot control the terminal. */
function printable(text: string): string {
  return text.replace(/\p{Cc}+/gu, " ");
}

function escapeMarkdown(text: string): string {
  return printable(text)
    .replace(/[\\`*_[\]|#~]/g, "\\$&")
    .replace(/&/g, "&amp;")
    .replace(/</g, "&lt;")
    .replace(/>/g, "&gt;");
}

/** A fenced block whose fence is longer than any run of backticks inside. */
function codeBlock(text: string): string {
  const longest = Math.max(2, ...(text.match(/`+/g) ?? []).map((run) => run.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}sh\n${text}\n${fence}`;
}
