// Measures the page in headless Chromium, for `tests/bench/page.rs`: what to measure and where is given as JSON in PAGE_TEST, and each figure is
// printed as a line. Nothing is asserted.

import { readFileSync } from 'node:fs';
import { request } from 'node:https';
import { gzipSync } from 'node:zlib';
import { launch } from './launch.mjs';

const given = JSON.parse(process.env.PAGE_TEST);
const PATIENCE = 120_000;
/** How often something is opened. */
const ROUNDS = 5;

const say = (what, value) => console.log(`${what.padEnd(36)} ${value}`);
const sorted = (numbers) => [...numbers].sort((a, b) => a - b);
const at = (numbers, part) => sorted(numbers)[Math.floor((numbers.length - 1) * part)];
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

async function signedIn(browser) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1280, height: 900 } });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  await page.goto(given.url);
  await page.getByLabel('Token').waitFor();
  await page.keyboard.type(given.admin);
  await page.keyboard.press('Enter');
  await page.getByRole('navigation').waitFor();
  return page;
}

/** The time until this holds in the page and was painted, in milliseconds since the document began to load or since `begin` was done. */
const painted = (page, holds, begin) => page.evaluate(async ([holds_, begin_]) => {
  const from = begin_ === null ? 0 : performance.now();
  if (begin_ !== null) location.hash = begin_;
  const isSo = new Function(`return ${holds_}`);
  const frame = () => new Promise((resolve) => { requestAnimationFrame(resolve); });
  while (!isSo()) await frame();
  await frame();
  return performance.now() - from;
}, [holds, begin ?? null]);

/** What the page keeps, in bytes: of its JavaScript, after what is garbage was collected, and of its process beyond other programs' share. */
async function memory(browser, page) {
  const session = await page.context().newCDPSession(page);
  await session.send('Performance.enable');
  const heap = async () => (await session.send('Performance.getMetrics')).metrics.find((one) => one.name === 'JSHeapUsedSize').value;
  const before = await heap();
  await session.send('HeapProfiler.collectGarbage');
  const after = await heap();
  const whole = await browser.newBrowserCDPSession();
  const { processInfo } = await whole.send('SystemInfo.getProcessInfo');
  const own = processInfo.filter((one) => one.type === 'renderer').map(({ id }) => {
    try {
      const lines = readFileSync(`/proc/${id}/smaps_rollup`, 'utf8').matchAll(/^Private_\w+: +(\d+) kB/gm);
      return [...lines].reduce((sum, [, kilobytes]) => sum + Number(kilobytes) * 1024, 0);
    } catch { return 0; }
  });
  return { before, after, process: Math.max(...own) };
}

/** The policy forbids code from text, which `painted` needs. */
const unguarded = (page) => page.context().newCDPSession(page).then((session) => session.send('Page.setBypassCSP', { enabled: true }));

async function long(browser) {
  const first = await browser.newContext({ ignoreHTTPSErrors: true });
  const paints = [];
  let files = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const page = await first.newPage();
    const bodies = [];
    // Only of the first: later pages are closed while their files still arrive.
    if (round === 0) page.on('response', (response) => { if (response.url().includes('/assets/') || response.url() === `${given.url}/`) bodies.push(response.body()); });
    await page.goto(given.url);
    await page.getByLabel('Token').waitFor();
    paints.push(await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0].startTime));
    if (round === 0) files = await Promise.all(bodies);
    await page.close();
  }
  const sum = (of) => files.reduce((all, body) => all + of(body).length, 0);
  say('the page, as it is and compressed', `${(sum((body) => body) / 1e3).toFixed(0)} kB, ${(sum(gzipSync) / 1e3).toFixed(0)} kB in ${files.length} files`);
  say('first paint', `${paints[0].toFixed(0)} ms with nothing in the browser's cache, ${at(paints.slice(1), 0.5).toFixed(0)} ms later; n = ${ROUNDS}`);

  const page = await signedIn(browser);
  const blank = await memory(browser, page);
  const isThere = `document.querySelectorAll('.probe').length === ${given.probes} && document.querySelector('.probe canvas') && document.querySelector('.sentence').textContent.includes('samples')`;
  await page.evaluate(() => { location.hash = '#/settings'; });
  await unguarded(page);
  await page.reload();
  await page.getByRole('navigation').waitFor();
  say('opened, the controller has not read it', `${(await painted(page, isThere, `#/runs/${given.run}`)).toFixed(0)} ms until all charts are painted`);
  const times = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    await page.reload();
    times.push(await painted(page, isThere));
  }
  say('opened again, from the first byte on', `${at(times, 0.5).toFixed(0)} ms median, ${at(times, 1).toFixed(0)} ms at most; n = ${ROUNDS}`);
  await page.waitForFunction((notes) => document.body.textContent.includes(`${notes - 500} earlier ones`), given.notes);
  const kept = await memory(browser, page);
  say('memory of the page', `${megabytes(kept.after)} of JavaScript (${megabytes(kept.before)} with garbage), ${megabytes(kept.process)} of its process; an empty page: ${megabytes(blank.after)} and ${megabytes(blank.process)}`);
  const listed = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    await page.reload();
    listed.push(await painted(page, `document.body.textContent.includes('${given.notes - 500} earlier ones')`));
  }
  say(`its ${given.notes} notes are there`, `${at(listed, 0.5).toFixed(0)} ms after the first byte, median; ${at(listed, 1).toFixed(0)} ms at most; n = ${ROUNDS}`);
}

/** How long after it happened an event is painted: by the clock of the controller and of the browser, which is the same. */
async function live(browser) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1280, height: 900 } });
  await context.addInitScript(() => {
    globalThis.latencies = [];
    let waiting = [];
    const listen = EventSource.prototype.addEventListener;
    EventSource.prototype.addEventListener = function (name, act) {
      listen.call(this, name, name !== 'entry' ? act : (event) => {
        waiting.push({ number: Number(event.lastEventId), at: Date.parse(JSON.parse(event.data).at) });
        act(event);
      });
    };
    new PerformanceObserver((list) => {
      const number = Math.max(...list.getEntries().filter((one) => one.name === 'rendered').map((one) => one.detail));
      requestAnimationFrame(() => setTimeout(() => {
        const now = Date.now();
        globalThis.latencies.push(...waiting.filter((one) => one.number <= number).map((one) => now - one.at));
        waiting = waiting.filter((one) => one.number > number);
      }));
    }).observe({ entryTypes: ['mark'] });
  });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  await page.goto(given.url);
  await page.getByLabel('Token').waitFor();
  await page.keyboard.type(given.admin);
  await page.keyboard.press('Enter');
  await page.getByRole('navigation').waitFor();
  await page.evaluate((run) => { location.hash = `#/runs/${run}`; }, given.run);
  await page.locator('.probe canvas').first().waitFor();
  // What was there before is no event of now.
  await page.evaluate(() => { globalThis.latencies.length = 0; });
  await page.waitForTimeout(given.seconds * 1000);
  const found = await page.evaluate(() => globalThis.latencies);
  say('from an event until it is painted', `${at(found, 0.5)} ms median, ${at(found, 0.99)} ms at the 99th, ${at(found, 1)} ms at most; n = ${found.length}`);
}

/** So many who follow a run, until it is over. */
async function viewers() {
  const follow = () => new Promise((resolve, reject) => {
    const sent = request(`${given.url}/api/v1/runs/${given.run}/stream`, { rejectUnauthorized: false, agent: false, headers: { authorization: `Bearer ${given.admin}` } }, (answer) => {
      let events = 0;
      answer.on('data', (bytes) => { events += bytes.toString('latin1').split('\nid: ').length - 1; });
      answer.on('end', () => resolve(events));
      answer.on('error', reject);
    });
    sent.on('error', reject);
    sent.end();
  });
  const events = await Promise.all(Array.from({ length: given.viewers }, follow));
  say(`${given.viewers} viewers`, `each got ${Math.min(...events)} to ${Math.max(...events)} events`);
}

async function largeFleet(browser) {
  const page = await signedIn(browser);
  await unguarded(page);
  await page.reload();
  await page.getByRole('navigation').waitFor();
  const isThere = `document.body.textContent.includes('${given.agents} of ${given.agents} agents')`;
  say('the fleet is painted', `${(await painted(page, isThere, '#/fleet')).toFixed(0)} ms after it was asked for`);
  const kept = await memory(browser, page);
  say('memory of the page', `${megabytes(kept.after)} of JavaScript (${megabytes(kept.before)} with garbage), ${megabytes(kept.process)} of its process`);
  const took = await page.evaluate(async () => {
    const search = document.querySelector('#search');
    const times = [];
    for (const text of ['s', 'sw', 'swarm-00', 'swarm-0099', 'cpu-stress', '']) {
      const began = performance.now();
      search.value = text;
      search.dispatchEvent(new Event('input'));
      await new Promise((resolve) => { requestAnimationFrame(() => setTimeout(resolve)); });
      times.push(performance.now() - began);
    }
    return times;
  });
  say('a letter in the filter', `${at(took, 0.5).toFixed(0)} ms median, ${at(took, 1).toFixed(0)} ms at most; n = ${took.length}`);
}

const plays = { long, live, viewers, 'large-fleet': largeFleet };
if (given.play === 'viewers') {
  await viewers();
} else {
  const { browser, end } = await launch();
  try { await plays[given.play](browser); } finally { await end(); }
}
