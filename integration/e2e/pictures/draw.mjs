// Draws the dashboard with Grafana's own components in a headless Chromium,
// from what Prometheus answered: node draw.mjs <dashboard> <answers> <pictures>
import { build } from 'esbuild';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const [model, answers, pictures] = process.argv.slice(2);
const here = import.meta.dirname;
const dashboard = JSON.parse(readFileSync(model));
const work = mkdtempSync(join(tmpdir(), 'pictures-'));

await build({
  entryPoints: [join(here, 'render.jsx')],
  outfile: join(work, 'render.js'),
  bundle: true,
  format: 'iife',
  jsx: 'automatic',
  define: { 'process.env.NODE_ENV': '"production"', global: 'window' },
  loader: { '.svg': 'dataurl', '.png': 'dataurl', '.woff2': 'dataurl', '.woff': 'dataurl', '.ttf': 'dataurl' },
  logLevel: 'error',
});

for (const state of ['quiet', 'outage']) {
  const data = JSON.parse(readFileSync(join(answers, `${state}.json`)));
  for (const mode of ['light', 'dark']) {
    const page = join(work, `${state}-${mode}.html`);
    writeFileSync(page, `<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="render.css"><body><div id="root"></div>
<script>window.drawn = ${JSON.stringify({ dashboard, mode, ...data })}</script><script src="render.js"></script>`);
    execFileSync('chromium', [
      '--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', '--disable-quic', '--allow-file-access-from-files', '--hide-scrollbars',
      `--user-data-dir=${join(work, 'profile')}`, `--window-size=1440,${height(dashboard)}`,
      '--virtual-time-budget=8000', `--screenshot=${join(pictures, `dashboard-${state}-${mode}.png`)}`, `file://${page}`,
    ], { stdio: ['ignore', 'ignore', process.env.DEBUG ? 'inherit' : 'ignore'] });
  }
}

// height is that of the rows of the dashboard that are drawn, in pixels.
function height({ panels }) {
  const end = panels.find((p) => p.title === 'Leaks, slow calls, deadlocks and leftovers')?.gridPos.y ?? 60;
  return end * 38;
}
