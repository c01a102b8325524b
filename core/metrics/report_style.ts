/**
 * Style sheet of report.html. Method colours are the Okabe-Ito palette (safe for colour-blind readers), adjusted to a
 * contrast of at least 3:1 with the page in both themes.
 */
export const REPORT_CSS = `
:root{color-scheme:light dark;--page:#fff;--panel:#f6f7f9;--text:#1a1f25;--muted:#59636e;--rule:#d8dde3;
--neutral:#59636e;
--s0:#0072b2;--s1:#d55e00;--s2:#00825f;--s3:#b4548c;--s4:#a87400;--s5:#2b86b8}
@media (prefers-color-scheme:dark){:root{--page:#13171b;--panel:#1b2026;--text:#e5e9ed;--muted:#9ba6b1;--rule:#303841;
--neutral:#aab4be;
--s0:#4aa8e0;--s1:#f5833a;--s2:#2bbd92;--s3:#dd92bb;--s4:#e0ae2a;--s5:#8ccbf2}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1120px;margin:0 auto;padding:32px 20px 56px}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 6px;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:44px 0 14px;padding-bottom:6px;border-bottom:1px solid var(--rule)}
p{margin:0 0 12px}
.lead{max-width:70ch}
.muted,.note{color:var(--muted)}
.note{font-size:.87rem;max-width:80ch}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:22px 0 0;padding:0}
.tiles div{background:var(--panel);border-radius:6px;padding:12px 14px}
.tiles dt{font-size:.82rem;color:var(--muted)}
.tiles dd{margin:0;font-size:1.4rem;font-weight:600;font-variant-numeric:tabular-nums;line-height:1.3}
.tiles dd.sub{font-size:.82rem;font-weight:400;color:var(--muted)}
.legend{display:flex;flex-wrap:wrap;gap:6px 22px;list-style:none;margin:0 0 14px;padding:0;font-size:.9rem}
.legend li{display:flex;align-items:center;gap:8px;overflow-wrap:anywhere}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(330px,100%),1fr));gap:26px 28px}
figure{margin:0;min-width:0}
.plot svg{display:block;width:100%;height:auto}
figcaption{font-size:.92rem;font-weight:600;margin-bottom:6px}
svg text{fill:var(--text);font-size:12px;font-variant-numeric:tabular-nums}
svg .tick,svg .name{fill:var(--muted)}
svg .label{font-size:11.5px;paint-order:stroke;stroke:var(--page);stroke-width:3px;stroke-linejoin:round}
svg path{fill:none}
.axis{stroke:var(--muted);stroke-width:1}
.grid{stroke:var(--rule);stroke-width:1}
.line{stroke-width:2;stroke:currentColor}
.line.faint{stroke-width:1.25;opacity:.55}
.error{stroke:currentColor;stroke-width:1.5}
.mark{fill:currentColor;stroke:var(--page);stroke-width:1.25}
.bar{fill:currentColor}
.neutral-fill{color:var(--neutral)}
.teacher,.reference{stroke:var(--neutral);stroke-width:1.75}
.teacher{stroke-dasharray:7 5}
.reference{stroke-dasharray:1.5 4;stroke-linecap:round}
.neutral path,.neutral circle{fill:none;stroke:var(--neutral);stroke-width:2.25}
.s0{color:var(--s0)}.s1{color:var(--s1)}.s2{color:var(--s2)}.s3{color:var(--s3)}.s4{color:var(--s4)}.s5{color:var(--s5)}
.scroll{overflow-x:auto;border:1px solid var(--rule);border-radius:6px}
.scroll:focus-visible{outline:2px solid var(--s0);outline-offset:2px}
table{border-collapse:collapse;width:100%;font-size:.88rem;font-variant-numeric:tabular-nums}
caption{text-align:left;padding:10px 12px;color:var(--muted);font-size:.85rem}
th,td{padding:8px 12px;text-align:right;white-space:nowrap;border-top:1px solid var(--rule)}
thead th{font-weight:600;background:var(--panel)}
th:first-child{text-align:left;position:sticky;left:0;background:var(--page);max-width:46vw;overflow:hidden;
text-overflow:ellipsis}
thead th:first-child{background:var(--panel)}
tbody th{font-weight:500}
tr.teacher-row td,tr.teacher-row th{background:var(--panel);border-bottom:2px solid var(--rule)}
tr.reference-row td,tr.reference-row th{color:var(--muted);border-top:2px solid var(--rule)}
td strong{font-weight:700}
.kind{color:var(--muted);font-weight:400}
.key{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(300px,100%),1fr));gap:4px 24px;margin:14px 0 0;
font-size:.85rem;color:var(--muted)}
.key div{display:flex;gap:8px}
.key dt{font-weight:600;color:var(--text);white-space:nowrap}
.key dd{margin:0}
.grids{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(300px,100%),1fr));gap:22px}
.grids img{display:block;width:100%;height:auto;image-rendering:pixelated;border-radius:4px;background:var(--panel)}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:6px 18px;margin:0;font-size:.92rem}
.facts dt{color:var(--muted)}
.facts dd{margin:0;overflow-wrap:anywhere;min-width:0}
code{font:.88em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
@media (max-width:560px){main{padding:20px 14px 40px}.facts{grid-template-columns:1fr;gap:0}
.facts dd{margin-bottom:8px}svg text{font-size:13px}}
@media print{.scroll{overflow:visible}h2,figure{break-inside:avoid}}
`;
