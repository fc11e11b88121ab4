// Open a workflow in ComfyUI's real frontend, queue it, and look for its result on the page.
//
//   node open_workflow.mjs URL WORKFLOW.json SCREENSHOT.png BROWSER
//
// Prints one JSON object: what test_browser.py asserts on.
import { readFileSync } from 'node:fs';
import { chromium } from 'playwright-core';

const [url, workflowFile, screenshot, executablePath] = process.argv.slice(2);
const workflow = JSON.parse(readFileSync(workflowFile, 'utf-8'));
const MINUTE = 60_000;

// No first-start tour, no release notes and no minimap over the graph.
await fetch(`${url}api/settings`, {
  method: 'POST',
  headers: { 'Content-Type': 'application/json' },
  body: JSON.stringify({
    'Comfy.TutorialCompleted': true,
    'Comfy.InstalledVersion': '9.9.9',
    'Comfy.Release.Status': 'dismissed',
    'Comfy.Graph.CanvasInfo': false,
    'Comfy.Minimap.Visible': false,
  }),
});

const browser = await chromium.launch({
  executablePath,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
});
try {
  const page = await browser.newPage({ viewport: { width: 1600, height: 1000 } });
  const complaints = [];
  page.on('pageerror', (error) => complaints.push({ kind: 'pageerror', text: `${error.stack ?? error}` }));
  page.on('console', (message) => {
    if (message.type() === 'error') {
      complaints.push({ kind: 'console', text: message.text(), where: message.location().url ?? '' });
    }
  });
  page.on('response', (response) => {
    if (response.status() >= 400) {
      complaints.push({ kind: `http ${response.status()}`, text: '', where: response.url() });
    }
  });

  await page.goto(url);
  await page.waitForFunction(
    () => window.app?.graph && Object.keys(window.LiteGraph?.registered_node_types ?? {})
      .some((name) => name.startsWith('LatentCritic')),
    null,
    { timeout: MINUTE },
  );
  await page.waitForTimeout(1500); // the frontend restores its own last workflow after it is up
  await page.evaluate((graph) => window.app.loadGraphData(graph), workflow);
  await page.waitForTimeout(1000);

  const missing = await page.evaluate(() => window.app.graph._nodes
    .map((node) => node.type)
    .filter((type) => !['Note', 'MarkdownNote', 'Reroute', 'PrimitiveNode'].includes(type)
      && !window.LiteGraph.registered_node_types[type]));
  const nodes = await page.evaluate(() => window.app.graph._nodes.map((node) => node.type));

  const history = async () => (await fetch(`${url}history`)).json();
  const before = await history();
  await page.evaluate(() => window.app.queuePrompt(0, 1));
  let entry;
  for (const end = Date.now() + 5 * MINUTE; !entry && Date.now() < end;) {
    await page.waitForTimeout(500);
    entry = Object.entries(await history()).find(([id, value]) => !(id in before) && value.status?.status_str)?.[1];
  }
  const status = entry?.status.status_str ?? 'not done in time';
  const outputs = entry?.outputs ?? {};

  // What ComfyUI's frontend offers as ready-made subgraphs.
  const blueprints = await page.evaluate(() => {
    const stores = document.querySelector('#vue-app')?.__vue_app__?.config.globalProperties.$pinia?._s;
    return (stores?.get('subgraph')?.subgraphBlueprints ?? []).map((one) => one.display_name);
  });

  // Several nodes may show pictures, and the last of them late: first wait for each that the server had pictures for.
  const pictured = Object.entries(outputs).filter(([, told]) => told.images?.length).map(([id]) => id);
  await page.waitForFunction(
    (ids) => window.app.graph._nodes
      .filter((node) => node.type.startsWith('LatentCritic') && ids.includes(String(node.id)))
      .every((node) => node.imgs?.length && node.imgs.every((image) => image.naturalWidth > 0)),
    pictured,
    { timeout: MINUTE / 3, polling: 500 },
  ).catch(() => {}); // a node that draws nothing is told of below

  // The pictures that our node shows: loaded images of a node of ours, drawn on the canvas; or the report of a node
  // inside a subgraph, which is not drawn.
  const shown = await page.waitForFunction(
    () => {
      const inner = [...(window.app.graph.subgraphs?.values() ?? [])].flatMap((graph) => graph._nodes ?? graph.nodes);
      const reported = inner.some((node) => node.type.startsWith('LatentCritic')
        && node.widgets?.some((widget) => widget.name === 'latent_critic_report' && widget.value));
      const found = [...window.app.graph._nodes, ...inner]
        .filter((node) => node.type.startsWith('LatentCritic'))
        .map((node) => ({
          type: node.type,
          pictures: (node.imgs ?? []).map((image) => ({ width: image.naturalWidth, src: image.src })),
          texts: (node.widgets ?? []).map((widget) => widget.value).filter((value) => typeof value === 'string'),
        }));
      const drawn = found.some((node) => node.pictures.length && node.pictures.every((picture) => picture.width > 0));
      return drawn || reported ? found : false;
    },
    null,
    { timeout: MINUTE, polling: 500 },
  ).then((handle) => handle.jsonValue()).catch(() => []);

  await page.evaluate(() => {
    document.querySelectorAll('.pi-times, .icon-\\[lucide--x\\]').forEach((mark) => {
      // The frontend's own news banner; newer frontends have none, and the tabs of workflows in its place.
      const banner = mark.getBoundingClientRect().top < 40 && !mark.closest('.workflow-tabs, .p-tablist');
      if (banner) mark.closest('button')?.click();
    });
    // The whole graph in view, as a person would fit it before looking.
    const nodes = window.app.graph._nodes;
    const left = Math.min(...nodes.map((node) => node.pos[0]));
    const top = Math.min(...nodes.map((node) => node.pos[1]));
    const right = Math.max(...nodes.map((node) => node.pos[0] + node.size[0]));
    const bottom = Math.max(...nodes.map((node) => node.pos[1] + node.size[1]));
    const view = window.app.canvas.ds;
    view.scale = Math.min((window.innerWidth - 140) / (right - left), (window.innerHeight - 220) / (bottom - top), 1.4);
    view.offset[0] = 90 / view.scale - left;
    view.offset[1] = 150 / view.scale - top;
    window.app.graph.setDirtyCanvas(true, true);
  });
  await page.waitForTimeout(1500);
  await page.screenshot({ path: screenshot });
  // The button of Keep Best of Session: its name before and after it was pressed.
  const sessions = await page.evaluate(() => window.app.graph._nodes.flatMap((node) => {
    const button = node.widgets?.find((widget) => widget.name === 'start a new session');
    const session = node.widgets?.find((widget) => widget.name === 'session');
    if (!button) return [];
    const before = session.value;
    button.callback();
    return [[before, session.value]];
  }));
  process.stdout.write(`${JSON.stringify({ nodes, missing, status, outputs, shown, blueprints, sessions, complaints })}\n`);
} finally {
  await browser.close();
}
