import { RcmError } from "../error.ts";
import { legend, seriesOf } from "./report_marks.ts";
import { scatterPlot, speedBars, stepPlot, type Figure } from "./report_plot.ts";
import * as rows from "./report_rows.ts";
import { escapeHtml as esc, type EvalReport } from "./report_rows.ts";
import { REPORT_CSS } from "./report_style.ts";

export type { EvalReport, EvalRow } from "./report_rows.ts";
export { renderMarkdown, renderTable } from "./report_text.ts";

const FD: Figure = {
  title: "FD",
  axis: "FD (lower is better)",
  kind: "distance",
  value: (r) => r.fd,
  text: (r) => rows.formatNumber(r.fd),
  range: (r) => (r.fdStd === undefined ? [NaN, NaN] : [r.fd - r.fdStd, r.fd + r.fdStd]),
};
const RECALL: Figure = {
  title: "Recall",
  axis: "recall (higher is better)",
  kind: "share",
  value: (r) => r.recall,
  text: (r) => r.recall.toFixed(3),
};
const VENDI: Figure = {
  title: "Vendi",
  axis: "effective number of samples",
  kind: "plain",
  value: (r) => r.vendi,
  text: (r) => rows.formatNumber(r.vendi),
};
const WITHIN: Figure = { ...VENDI, value: (r) => r.vendiWithin, text: (r) => rows.formatNumber(r.vendiWithin) };
const AGREEMENT: Figure = {
  title: "Agreement",
  axis: "agreement (higher is better)",
  kind: "share",
  percent: true,
  value: (r) => r.agreement,
  text: (r) => rows.formatPercent(r.agreement),
  range: (r) => [r.agreementLow, r.agreementHigh],
};

const TRADE = { horizontal: RECALL, vertical: FD, title: "Quality against diversity (best is bottom right)" };

/**
 * One self-contained HTML page: plots, table, sample grids and provenance; it loads no other file and runs no script.
 * Throws: E_ARG if a grid is not a PNG.
 */
export function renderReport(report: EvalReport): string {
  // The policy makes the browser refuse to load anything else.
  const policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<title>${esc(report.title)}</title>
<style>${REPORT_CSS}</style>
</head>
<body>
<main>
<header>
<h1>${esc(report.title)}</h1>
<p class="muted">${esc(report.dataset)} · ${esc(report.recipe)} · ${esc(report.created)}</p>
${summary(report)}
</header>
${plots(report)}
<section aria-labelledby="figures"><h2 id="figures">All figures</h2>
${table(report)}
</section>
${grids(report)}
<section aria-labelledby="origin"><h2 id="origin">How this was made</h2>
${facts(report)}
</section>
</main>
</body>
</html>
`;
}

/** Compares the student of lowest FD with the teacher, in a sentence and four tiles. */
function summary(report: EvalReport): string {
  const { teacher } = report;
  const best = report.rows.filter((row) => Number.isFinite(row.fd)).sort((a, b) => a.fd - b.fd)[0];
  if (!best) return "";
  const tile = (name: string, value: string, old: string) =>
    `<div><dt>${name}</dt><dd>${esc(value)}</dd><dd class="sub">teacher ${esc(old)}</dd></div>`;
  const tiles = [
    tile("FD, lower is better", rows.formatNumber(best.fd), rows.formatNumber(teacher.fd)),
    tile("Recall", rows.formatNumber(best.recall), rows.formatNumber(teacher.recall)),
    tile("Agreement with the prompt", rows.formatPercent(best.agreement), rows.formatPercent(teacher.agreement)),
    tile("Speed-up", rows.formatSpeedup(best.speedup), `${rows.formatSeconds(teacher.secondsPerSample)} a sample`),
  ];
  const [winner, other] = [best, teacher].map((row) => esc(rows.rowLabel(row)));
  return `<p class="lead">The student with the lowest FD is <strong>${winner}</strong>; the teacher is ${other}.</p>
<dl class="tiles">${tiles.join("")}</dl>`;
}

function plots(report: EvalReport): string {
  const { teacher, reference } = report;
  const series = seriesOf(report.rows);
  if (series.length === 0) return "";
  const against = (figure: Figure, title: string) => stepPlot({ ...figure, title }, series, teacher, reference);
  const part = (id: string, title: string, figures: string[]) => {
    const key = id === "quality" ? legend(series, teacher, reference) : "";
    const body = `${key}<div class="plots">${figures.join("")}</div>`;
    return `<section aria-labelledby="${id}"><h2 id="${id}">${title}</h2>${body}</section>`;
  };
  return [
    part("quality", "Quality", [
      against(FD, "Fréchet distance against steps"),
      against(AGREEMENT, "Agreement with the prompt against steps"),
    ]),
    part("diversity", "Diversity", [
      against(RECALL, "Recall against steps"),
      against(VENDI, "Vendi score against steps"),
      against(WITHIN, "Vendi score within a prompt against steps"),
    ]),
    part("trade", "Quality, diversity and speed together", [
      scatterPlot(TRADE, series, teacher, reference),
      speedBars(series, teacher),
    ]),
  ].join("\n");
}

function table(report: EvalReport): string {
  const best = rows.COLUMNS.map((column) => rows.bestRows(column, report.rows));
  const head = rows.COLUMNS.map((column) => `<th scope="col">${esc(rows.heading(column))}</th>`).join("");
  const body = rows.orderedRows(report).map(({ row, kind }) => {
    const cells = rows.COLUMNS.map((column, c) => {
      const text = esc(column.text(row));
      return `<td>${best[c].has(row) ? `<strong>${text}</strong>` : text}</td>`;
    });
    const suffix = kind === "student" || row.name.toLowerCase() === kind ? "" : ` <span class="kind">(${kind})</span>`;
    return `<tr class="${kind}-row"><th scope="row">${esc(row.name)}${suffix}</th>${cells.join("")}</tr>`;
  });
  const key = rows.COLUMNS.map((column) => `<div><dt>${esc(column.head)}</dt><dd>${esc(column.about)}</dd></div>`).join(
    "",
  );
  return `<div class="scroll" role="region" aria-label="All figures" tabindex="0"><table>
<caption>Bold: best student of the column. ↓ lower is better, ↑ higher is better.</caption>
<thead><tr><th scope="col">Method</th>${head}</tr></thead>
<tbody>${body.join("\n")}</tbody></table></div>
<dl class="key">${key}</dl>`;
}

function grids(report: EvalReport): string {
  const figures = rows.orderedRows(report).flatMap(({ row, kind }) => {
    if (!row.grid) return [];
    const { width, height } = pngSize(row.grid, row.name);
    const label = esc(rows.rowLabel(row));
    const data = Buffer.from(row.grid.buffer, row.grid.byteOffset, row.grid.byteLength).toString("base64");
    const alt = kind === "reference" ? `Grid of real samples: ${label}` : `Grid of samples from ${label}`;
    const image = `<img src="data:image/png;base64,${data}" width="${width}" height="${height}" alt="${alt}">`;
    return [`<figure><figcaption>${label}</figcaption>${image}</figure>`];
  });
  if (figures.length === 0) return "";
  const body = `<div class="grids">${figures.join("")}</div>`;
  return `<section aria-labelledby="samples"><h2 id="samples">Samples</h2>${body}</section>`;
}

function facts(report: EvalReport): string {
  const list: [string, string][] = [
    ["Recipe", `${esc(report.recipe)} <code>${esc(report.recipeHash)}</code>`],
    ["Data", esc(report.dataset)],
    [
      "Samples",
      `${rows.formatCount(report.realCount)} real, ${rows.formatCount(report.fakeCount)} generated for each row`,
    ],
    ["Device", esc(report.device)],
    ["Created", esc(report.created)],
    ["Command", `<code>${esc(report.command)}</code>`],
  ];
  const notes =
    report.notes.length > 0
      ? `<h3>Notes</h3><ul>${report.notes.map((note) => `<li>${esc(note)}</li>`).join("")}</ul>`
      : "";
  return `<dl class="facts">${list.map(([name, value]) => `<dt>${name}</dt><dd>${value}</dd>`).join("")}</dl>${notes}`;
}

const PNG_START = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];

/** Pixel size from the header chunk, so that the page does not jump while it opens. */
function pngSize(png: Uint8Array, name: string): { width: number; height: number } {
  if (png.length < 24 || PNG_START.some((byte, i) => png[i] !== byte)) {
    throw new RcmError("E_ARG", `the grid of ${name} is not a PNG`, { op: "renderReport", got: `${png.length} bytes` });
  }
  const view = new DataView(png.buffer, png.byteOffset, png.byteLength);
  return { width: view.getUint32(16), height: view.getUint32(20) };
}
