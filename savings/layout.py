"""The page around an estimate: head, style, places for the texts."""

from __future__ import annotations

from string import Template
from typing import Final

PAGE: Final = Template(
    """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>$title</title>
<style>
:root {
  --paper: #fff; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --band: #f6f8fa;
  --one: #0b5cad; --two: #e08a1e;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #14181d; --ink: #e6edf3; --soft: #9da7b3; --line: #3d444d; --band: #1d232a;
    --one: #6cb0f5; --two: #f0a84b;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 62rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
.answer {
  font-size: 1.3rem; line-height: 1.4; border-left: .3rem solid var(--one); padding-left: .8rem;
}
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; color: var(--soft); }
dd { margin: 0; }
figure { margin: 1rem 0; }
figure svg { display: block; width: 100%; max-width: 34rem; height: auto; }
figcaption, caption { color: var(--soft); font-size: .9rem; text-align: left; }
caption { padding-bottom: .3rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; min-width: 60%; }
th, td {
  padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top; font-weight: normal;
  overflow-wrap: break-word; min-width: 5rem;
}
tbody th { min-width: 9rem; }
tbody td { white-space: nowrap; }
tbody td.w { min-width: 16rem; white-space: normal; }
.n { min-width: 0; }
thead th, tfoot th, tfoot td { font-weight: 600; }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; }
tbody tr:nth-child(even) { background: var(--band); }
tfoot tr { border-top: 2px solid var(--line); }
tbody th, tbody td { border-bottom: 1px solid var(--line); }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
thead .n { white-space: normal; }
li { margin: .25rem 0; }
@media (min-width: 60rem) { tbody th { min-width: 13rem; } }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  .wide { overflow: visible; }
  table { font-size: 8pt; }
  tbody td { white-space: normal; }
  tbody th, tbody td { min-width: 0; }
  tr, figure, li { break-inside: avoid; }
  h2, h3, caption { break-after: avoid; }
}
</style>
</head>
<body>
<main>
<h1>What could be saved: cluster $cluster</h1>
<p class="answer">$answer</p>
<dl>$facts</dl>
$sections
</main>
</body>
</html>
"""
)
