import { escapeHtml, type EvalRow } from "./report_rows.ts";

/** Rows of one method by steps; `slot` selects colour and marker. */
export interface Series {
  name: string;
  slot: number;
  rows: EvalRow[];
}

/** Number of colours in the style sheet (`--s0` ..). */
export const COLOURS = 6;

/** Groups rows by name in order of first appearance. */
export function seriesOf(rows: readonly EvalRow[]): Series[] {
  const byName = new Map<string, EvalRow[]>();
  for (const row of rows) byName.set(row.name, [...(byName.get(row.name) ?? []), row]);
  return [...byName].map(([name, list], slot) => ({ name, slot, rows: list.sort((a, b) => a.steps - b.steps) }));
}

/** A coordinate rounded to two decimals, to keep the file small. */
export const xy = (value: number): string => String(Math.round(value * 100) / 100);

export const colourClass = (slot: number): string => `s${slot % COLOURS}`;

/** Marker of a method; shape and colour both vary, and the combination repeats after 30 methods. */
export function marker(x: number, y: number, slot: number, title = ""): string {
  const r = 5;
  const point = (px: number, py: number) => `${xy(x + px)},${xy(y + py)}`;
  const polygon = (...points: string[]) => `<polygon points="${points.join(" ")}"`;
  const shapes = [
    `<circle cx="${xy(x)}" cy="${xy(y)}" r="${r}"`,
    polygon(point(-r, -r), point(r, -r), point(r, r), point(-r, r)),
    polygon(point(0, -r - 1.5), point(r + 1, r - 0.5), point(-r - 1, r - 0.5)),
    polygon(point(0, -r - 1.5), point(r + 1.5, 0), point(0, r + 1.5), point(-r - 1.5, 0)),
    polygon(point(0, r + 1.5), point(r + 1, -r + 0.5), point(-r - 1, -r + 0.5)),
  ];
  const element = slot % shapes.length === 0 ? "circle" : "polygon";
  const tooltip = title ? `<title>${escapeHtml(title)}</title>` : "";
  return `${shapes[slot % shapes.length]} class="mark ${colourClass(slot)}">${tooltip}</${element}>`;
}

/** Cross for the teacher, ring for the reference, in a neutral colour that no method uses. */
export function neutralMark(x: number, y: number, kind: "teacher" | "reference", title: string): string {
  const [left, right, top, bottom] = [xy(x - 5), xy(x + 5), xy(y - 5), xy(y + 5)];
  const shape =
    kind === "teacher"
      ? `<path d="M${left} ${top}L${right} ${bottom}M${left} ${bottom}L${right} ${top}"/>`
      : `<circle cx="${xy(x)}" cy="${xy(y)}" r="5"/>`;
  return `<g class="neutral"><title>${escapeHtml(title)}</title>${shape}</g>`;
}

/** Colour and shape key, shared by all plots. */
export function legend(series: readonly Series[], teacher: EvalRow, reference: EvalRow | undefined): string {
  const swatch = (body: string) => `<svg width="28" height="16" viewBox="0 0 28 16" aria-hidden="true">${body}</svg>`;
  const items = series.map((s) => {
    const line = `<path class="line ${colourClass(s.slot)}" d="M0 8H28"/>${marker(14, 8, s.slot)}`;
    return swatch(line) + escapeHtml(s.name);
  });
  const steps = teacher.steps > 0 ? ` (${teacher.steps} steps)` : "";
  items.push(`${swatch('<path class="teacher" d="M0 8H28"/>')}${escapeHtml(teacher.name)}${steps}`);
  if (reference) items.push(`${swatch('<path class="reference" d="M0 8H28"/>')}${escapeHtml(reference.name)}`);
  return `<ul class="legend" aria-label="Plot key">${items.map((item) => `<li>${item}</li>`).join("")}</ul>`;
}

interface Box {
  x0: number;
  y0: number;
  x1: number;
  y1: number;
}

/**
 * Labels each point at the first of eight positions where the text overlaps no other text, marker or edge. Without such
 * a position it gets no label (its marker has a tooltip).
 */
export function placeLabels(points: { x: number; y: number; text: string }[], area: Box): string {
  const occupied: Box[] = points.map((p) => ({ x0: p.x - 7, y0: p.y - 7, x1: p.x + 7, y1: p.y + 7 }));
  return points
    .map((p) => {
      // No text metrics without a browser: 6.4 units is a wide average at this font size.
      const width = [...p.text].length * 6.4;
      const sides: [number, number, "start" | "middle" | "end"][] = [
        [9, -6, "start"], [-9, -6, "end"], [0, -22, "middle"], [0, 10, "middle"],
        [7, -19, "start"], [7, 7, "start"], [-7, -19, "end"], [-7, 7, "end"],
      ];
      for (const [dx, dy, anchor] of sides) {
        const left = p.x + dx - (anchor === "start" ? 0 : anchor === "end" ? width : width / 2);
        const box = { x0: left, y0: p.y + dy, x1: left + width, y1: p.y + dy + 12 };
        const inside = box.x0 >= area.x0 && box.x1 <= area.x1 && box.y0 >= area.y0 && box.y1 <= area.y1;
        if (!inside || occupied.some((t) => t.x0 < box.x1 && box.x0 < t.x1 && t.y0 < box.y1 && box.y0 < t.y1)) continue;
        occupied.push(box);
        const place = `x="${xy(p.x + dx)}" y="${xy(box.y0 + 10)}" text-anchor="${anchor}"`;
        return `<text class="label" ${place}>${escapeHtml(p.text)}</text>`;
      }
      return "";
    })
    .join("");
}
