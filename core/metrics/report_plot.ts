import { colourClass, marker, neutralMark, placeLabels, xy, type Series } from "./report_marks.ts";
import { escapeHtml, formatSeconds, formatSpeedup, rowLabel, type EvalRow } from "./report_rows.ts";
import { autoScale, linearScale, stepScale, tickText, type Scale } from "./report_scale.ts";

const WIDTH = 420;
const HEIGHT = 290;
const AREA = { x0: 56, y0: 14, x1: WIDTH - 14, y1: HEIGHT - 46 };
type Extent = readonly [from: number, to: number];
const HORIZONTAL: Extent = [AREA.x0, AREA.x1];
const VERTICAL: Extent = [AREA.y1, AREA.y0];

/** How one metric of a row is plotted. */
export interface Figure {
  title: string;
  /** Axis text, with the unit and the direction that is better. */
  axis: string;
  value: (row: EvalRow) => number;
  text: (row: EvalRow) => string;
  /** Bounds of the error bar. */
  range?: (row: EvalRow) => [number, number];
  /** `distance` starts at 0, or is logarithmic over wide ranges; `share` ends at 1; `plain` fits the data. */
  kind: "distance" | "share" | "plain";
  percent?: boolean;
}

/** Plots a metric against steps: one line per method, the teacher dashed, the reference dotted. */
export function stepPlot(
  figure: Figure,
  series: readonly Series[],
  teacher: EvalRow,
  reference: EvalRow | undefined,
): string {
  const shown = series.map((s) => ({
    ...s,
    rows: s.rows.filter((row) => row.steps > 0 && Number.isFinite(figure.value(row))),
  }));
  const rows = shown.flatMap((s) => s.rows);
  const levels = ([["teacher", teacher], ["reference", reference]] as const).flatMap(([kind, row]) =>
    row && Number.isFinite(figure.value(row)) ? [{ kind, row, y: figure.value(row) }] : [],
  );
  if (rows.length === 0) return emptyFigure(figure.title);
  const ends = figure.range ? rows.flatMap(figure.range).filter(Number.isFinite) : [];
  const main = levels
    .filter((level) => level.kind === "teacher")
    .map((level) => level.y)
    .concat(rows.map(figure.value));
  const y = scaleFor(figure, [...main, ...ends, ...levels.map((level) => level.y)], main, VERTICAL);
  const x = stepScale(rows.map((row) => row.steps), AREA.x0, AREA.x1);
  const body = [frame(x, y, "sampling steps", figure)];
  for (const level of levels) {
    const tooltip = escapeHtml(`${rowLabel(level.row)}: ${figure.text(level.row)}`);
    const line = `M${AREA.x0} ${xy(y.at(level.y))}H${AREA.x1}`;
    body.push(`<path class="${level.kind}" d="${line}"><title>${tooltip}</title></path>`);
  }
  for (const s of shown) {
    const colour = colourClass(s.slot);
    // Offset methods with error bars horizontally, so that the bars do not overlap.
    const shift = figure.range ? (s.slot - (shown.length - 1) / 2) * Math.min(8, 32 / shown.length) : 0;
    const path = s.rows.map((row) => `${xy(x.at(row.steps) + shift)} ${xy(y.at(figure.value(row)))}`).join("L");
    if (s.rows.length > 1) body.push(`<path class="line ${colour}" d="M${path}"/>`);
    for (const row of s.rows) {
      const px = x.at(row.steps) + shift;
      if (figure.range) body.push(errorBar(px, figure.range(row), y, colour));
      body.push(marker(px, y.at(figure.value(row)), s.slot, `${rowLabel(row)}: ${figure.text(row)}`));
    }
  }
  const summary = [...rows, ...levels.map((level) => level.row)]
    .map((row) => `${rowLabel(row)}: ${figure.text(row)}`)
    .join("; ");
  return wrap(figure.title, summary, body.join(""), HEIGHT);
}

/** Plots two metrics of each row against each other, points labelled with method and steps. */
export function scatterPlot(
  { horizontal, vertical, title }: { horizontal: Figure; vertical: Figure; title: string },
  series: readonly Series[],
  teacher: EvalRow,
  reference: EvalRow | undefined,
): string {
  const ok = (row: EvalRow | undefined): row is EvalRow =>
    row !== undefined && Number.isFinite(horizontal.value(row)) && Number.isFinite(vertical.value(row));
  const shown = series.map((s) => ({ ...s, rows: s.rows.filter(ok) }));
  const rows = [...shown.flatMap((s) => s.rows), ...[teacher, reference].filter(ok)];
  if (rows.length === 0) return emptyFigure(title);
  const main = rows.filter((row) => row !== reference);
  const x = scaleFor(horizontal, rows.map(horizontal.value), main.map(horizontal.value), HORIZONTAL);
  const y = scaleFor(vertical, rows.map(vertical.value), main.map(vertical.value), VERTICAL);
  const place = (row: EvalRow) => ({ x: x.at(horizontal.value(row)), y: y.at(vertical.value(row)) });
  const tip = (row: EvalRow) =>
    `${rowLabel(row)}: ${horizontal.title} ${horizontal.text(row)}, ${vertical.title} ${vertical.text(row)}`;
  const body = [frame(x, y, horizontal.axis, vertical)];
  for (const s of shown) {
    const path = s.rows.map((row) => `${xy(place(row).x)} ${xy(place(row).y)}`).join("L");
    if (s.rows.length > 1) body.push(`<path class="line faint ${colourClass(s.slot)}" d="M${path}"/>`);
    for (const row of s.rows) body.push(marker(place(row).x, place(row).y, s.slot, tip(row)));
  }
  for (const [kind, row] of [["teacher", teacher], ["reference", reference]] as const) {
    if (ok(row)) body.push(neutralMark(place(row).x, place(row).y, kind, tip(row)));
  }
  body.push(
    placeLabels(
      rows.map((row) => ({ ...place(row), text: row.steps > 0 ? `${row.name} ${row.steps}` : row.name })),
      AREA,
    ),
  );
  return wrap(title, rows.map(tip).join("; "), body.join(""), HEIGHT);
}

/** Horizontal bars of speed-up against the teacher, whose bar is 1. */
export function speedBars(series: readonly Series[], teacher: EvalRow): string {
  const bars = [
    { row: teacher, class: "bar neutral-fill", value: 1 },
    ...series.flatMap((s) => s.rows.map((row) => ({ row, class: `bar ${colourClass(s.slot)}`, value: row.speedup }))),
  ].filter((bar) => Number.isFinite(bar.value) && bar.value > 0);
  const longest = Math.max(...bars.map((bar) => bar.value));
  const left = 128;
  const pitch = 30;
  const text = (row: EvalRow, value: number): string =>
    [formatSpeedup(value), formatSeconds(row.secondsPerSample)].join(" · ");
  const body = bars.map((bar, i) => {
    const top = 8 + i * pitch;
    const label = rowLabel(bar.row);
    const short = [...label].length > 19 ? `${[...label].slice(0, 18).join("")}…` : label;
    const width = Math.max(1.5, (bar.value / longest) * (WIDTH - left - 112));
    return (
      `<g><title>${escapeHtml(`${label}: ${text(bar.row, bar.value)}`)}</title>` +
      `<text class="label" x="${left - 8}" y="${top + 14}" text-anchor="end">${escapeHtml(short)}</text>` +
      `<rect class="${bar.class}" x="${left}" y="${top}" width="${xy(width)}" height="20" rx="2"/>` +
      `<text class="label" x="${xy(left + width + 6)}" y="${top + 14}">${escapeHtml(text(bar.row, bar.value))}</text>` +
      "</g>"
    );
  });
  const height = 16 + bars.length * pitch;
  const axis = `<path class="axis" d="M${left} 2V${height - 4}"/>`;
  return wrap(
    "Speed-up against the teacher, and time per sample",
    bars.map((bar) => `${rowLabel(bar.row)}: ${text(bar.row, bar.value)}`).join("; "),
    body.join("") + axis,
    height,
  );
}

/** The axis spans `values`; only the `main` ones (not the reference, not error bars) choose between linear and log. */
function scaleFor(figure: Figure, values: number[], main: number[], [from, to]: Extent): Scale {
  if (figure.kind === "distance") return autoScale(values, main, from, to);
  return linearScale(values, from, to, figure.kind === "share" ? { cap: 1 } : {});
}

function frame(x: Scale, y: Scale, xText: string, { axis, percent = false }: Figure): string {
  const parts: string[] = [];
  for (const tick of y.ticks) {
    const at = xy(y.at(tick));
    const place = `x="${AREA.x0 - 7}" y="${at}" dy="0.35em" text-anchor="end"`;
    parts.push(`<path class="grid" d="M${AREA.x0} ${at}H${AREA.x1}"/>`);
    parts.push(`<text class="tick" ${place}>${tickText(tick, y, percent)}</text>`);
  }
  let free = -Infinity;
  for (const tick of x.ticks) {
    const at = x.at(tick);
    const text = x.log ? String(tick) : tickText(tick, x, false);
    parts.push(`<path class="axis" d="M${xy(at)} ${AREA.y1}v4"/>`);
    if (at < free) continue;
    free = at + text.length * 7 + 6;
    parts.push(`<text class="tick" x="${xy(at)}" y="${AREA.y1 + 18}" text-anchor="middle">${text}</text>`);
  }
  const middle = (AREA.y0 + AREA.y1) / 2;
  const log = y.log ? ", log scale" : "";
  const below = `x="${(AREA.x0 + AREA.x1) / 2}" y="${HEIGHT - 8}" text-anchor="middle"`;
  const left = `x="14" y="${middle}" text-anchor="middle" transform="rotate(-90 14 ${middle})"`;
  parts.push(
    `<path class="axis" d="M${AREA.x0} ${AREA.y1}H${AREA.x1}"/>`,
    `<text class="name" ${below}>${escapeHtml(xText)}</text>`,
    `<text class="name" ${left}>${escapeHtml(axis + log)}</text>`,
  );
  return parts.join("");
}

function errorBar(x: number, [low, high]: [number, number], y: Scale, colour: string): string {
  if (!Number.isFinite(low) || !Number.isFinite(high) || (y.log && low <= 0)) return "";
  const [bottom, top, left] = [xy(y.at(low)), xy(y.at(high)), xy(x - 4)];
  return `<path class="error ${colour}" d="M${xy(x)} ${bottom}V${top}M${left} ${bottom}h8M${left} ${top}h8"/>`;
}

/** One plot with its caption; the values are in its label for screen readers. */
function wrap(title: string, summary: string, body: string, height: number): string {
  const name = escapeHtml(title);
  const about = `role="img" aria-label="${name}. ${escapeHtml(summary)}"`;
  const svg = `<svg viewBox="0 0 ${WIDTH} ${height}" ${about}>${body}</svg>`;
  return `<figure class="plot"><figcaption>${name}</figcaption>${svg}</figure>`;
}

function emptyFigure(title: string): string {
  return `<figure class="plot"><figcaption>${escapeHtml(title)}</figcaption><p class="muted">No values.</p></figure>`;
}
