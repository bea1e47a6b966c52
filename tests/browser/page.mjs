// Plays what people do on the page, in headless Chromium. What to play and where is given as JSON in PAGE_TEST; each step that went as it
// should is printed as a line, and the first that does not ends it with exit code 1.

import { readFileSync, mkdirSync } from 'node:fs';
import { createServer } from 'node:http';
import { connect, createServer as createProxy } from 'node:net';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { liveDay } from './day.mjs';
import { launch } from './launch.mjs';

const given = JSON.parse(process.env.PAGE_TEST);
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const PATIENCE = 20_000;
/** Where screenshots go, to be looked at. */
const shots = process.env.PAGE_SCREENSHOTS;
if (shots) mkdirSync(shots, { recursive: true });

const complaints = [];
let expectsErrors = false;

function check(holds, what) {
  if (!holds) throw new Error(`not so: ${what}`);
  console.log(`ok: ${what}`);
}

/** Waits until something holds, without a fixed time. */
async function until(what, holds) {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const value = await holds();
    if (value) { console.log(`ok: ${what}`); return value; }
    if (Date.now() > end) throw new Error(`not within ${PATIENCE} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function watch(page, name) {
  page.setDefaultTimeout(PATIENCE);
  const complain = (text) => { if (!expectsErrors) complaints.push(`${name}: ${text}`); };
  page.on('console', (message) => { if (['error', 'warning'].includes(message.type())) complain(message.text()); });
  page.on('pageerror', (error) => complain(String(error)));
  page.on('dialog', (dialog) => { complain(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on('request', (request) => { if (!request.url().startsWith(given.url)) complain(`asks elsewhere: ${request.url()}`); });
}

/** A way to the controller that can be cut. Its address. */
const way = { cut: false, ends: new Set() };
async function startWay(to) {
  const target = new URL(to);
  const proxy = createProxy((near) => {
    if (way.cut) { near.destroy(); return; }
    const far = connect(Number(target.port), target.hostname);
    for (const end of [near, far]) {
      way.ends.add(end);
      end.on('error', () => {}).on('close', () => { way.ends.delete(end); near.destroy(); far.destroy(); });
    }
    near.pipe(far).pipe(near);
  });
  await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  way.close = () => { way.ends.forEach((end) => end.destroy()); proxy.close(); };
  return `https://127.0.0.1:${proxy.address().port}`;
}
function cutWay(isCut) {
  way.cut = isCut;
  if (isCut) way.ends.forEach((end) => end.destroy());
}

async function open(browser, name, options) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1280, height: 900 }, reducedMotion: 'reduce', ...options });
  if (given.assets) {
    // While the page is being written, its files come from the folder, with the headers of the program.
    await context.route('**/assets/*', async (route) => {
      const response = await route.fetch();
      const path = join(given.assets, new URL(route.request().url()).pathname.split('/').pop());
      await route.fulfill({ response, body: readFileSync(path) });
    });
  }
  const page = await context.newPage();
  watch(page, name);
  return page;
}

async function signIn(page, token) {
  await page.goto(given.url);
  await page.getByLabel('Token').waitFor();
  await page.keyboard.type(token);
  await page.keyboard.press('Enter');
  await page.getByRole('navigation').waitFor();
}

/** What axe finds that is serious or worse. */
async function serious(page, where) {
  // As an extension would, and not through the page's own policy.
  await page.evaluate(axe);
  const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
  const bad = found.violations.filter((one) => ['serious', 'critical'].includes(one.impact));
  check(bad.length === 0, `axe finds nothing serious in ${where}${bad.map((one) => `\n  ${one.id}: ${one.nodes.map((node) => `${node.html} ${node.failureSummary}`).slice(0, 4).join('\n    ')}`).join('')}`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  check(wide <= 0, `nothing is wider than the window in ${where} (${wide})`);
}

async function shoot(page, name) {
  if (!shots) return;
  await page.screenshot({ path: join(shots, `${name}-light.png`) });
  await page.emulateMedia({ colorScheme: 'dark' });
  await page.screenshot({ path: join(shots, `${name}-dark.png`) });
  await page.emulateMedia({ colorScheme: 'light', forcedColors: 'active' });
  await page.screenshot({ path: join(shots, `${name}-forced.png`) });
  await page.emulateMedia({ colorScheme: 'light', forcedColors: 'none' });
  await page.setViewportSize({ width: 360, height: 740 });
  await page.waitForTimeout(200);
  await page.screenshot({ path: join(shots, `${name}-360.png`), fullPage: true });
  await page.setViewportSize({ width: 1920, height: 1080 });
  await page.evaluate(() => document.documentElement.classList.add('large') ?? dispatchEvent(new Event('large')));
  await page.waitForTimeout(200);
  await page.screenshot({ path: join(shots, `${name}-projector.png`) });
  await page.evaluate(() => document.documentElement.classList.remove('large') ?? dispatchEvent(new Event('large')));
  await page.setViewportSize({ width: 1280, height: 900 });
}

const api = (page, method, path, body, headers = { 'x-backburn-page': '1', 'content-type': 'application/json' }) => page.evaluate(async ([m, p, b, h]) => {
  const response = await fetch(p, { method: m, headers: h, body: b });
  return { status: response.status, body: await response.json().catch(() => null) };
}, [method, path, body === undefined ? undefined : JSON.stringify(body), headers]);

const goTo = (page, hash) => page.evaluate((to) => { location.hash = to; }, hash);

/** Signs in, starts a run, watches it, halts by the key, and resumes; all by keyboard where it matters. */
async function fleet(browser) {
  const page = await open(browser, 'operator');
  await signIn(page, given.operator);
  check(await page.evaluate(() => document.cookie === '' && !JSON.stringify({ ...localStorage, ...sessionStorage }).includes('.') && !location.href.includes('token')), 'the token is nowhere that a script can read');
  const cookie = (await page.context().cookies()).find((one) => one.name === '__Host-backburn');
  check(cookie.httpOnly && cookie.secure && cookie.sameSite === 'Strict' && !cookie.value.includes(given.operator.split('.')[2]), 'the cookie is HttpOnly, Secure and SameSite=Strict, and the token is not in it');

  // By keyboard to the experiment and its run.
  await goTo(page, '#/experiments');
  await page.getByRole('link', { name: given.experiment }).focus();
  await page.keyboard.press('Enter');
  await page.getByRole('button', { name: 'What would it hit?' }).focus();
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'What would be hit' }).waitFor();
  check((await page.locator('.plan').innerText()).includes(given.victim), 'the plan names whom it would hit');
  await serious(page, 'an experiment');
  await shoot(page, 'experiment');
  await page.getByRole('button', { name: 'Run it' }).focus();
  await page.keyboard.press('Enter');
  await page.waitForURL(/#\/runs\//);
  const run = decodeURIComponent(page.url().split('/runs/')[1]);
  await page.locator('.fault.acts').waitFor();
  check((await page.locator('.fault.acts').innerText()).includes('left'), 'a fault that acts has a countdown');
  check((await page.locator('.owed').innerText()).includes(given.agent), 'what is still to be reverted is named by agent');
  check((await page.locator('.rules').innerText()).includes('of 100 in a row'), 'an abort rule has its distance');
  await page.locator('.probe canvas').first().waitFor();
  await until('the probe has samples', async () => Number((await page.locator('.sentence').first().innerText()).split(' ')[0]) > 3);
  await serious(page, 'a live run');
  await shoot(page, 'live');

  // The link is cut, and comes back: nothing is lost and nothing comes twice.
  expectsErrors = true;
  cutWay(true);
  await page.locator('.freshness.bad').waitFor();
  check((await page.locator('.freshness').innerText()).includes('Link lost'), 'the page says that its link is lost');
  await shoot(page, 'lost');
  cutWay(false);
  await page.locator('.freshness:not(.bad)').waitFor();
  await until('the stream is live again', async () => (await page.locator('.run-head').innerText()).includes('live ·'));
  expectsErrors = false;

  // The key: not while typing, then at once.
  await goTo(page, '#/fleet');
  const search = page.getByRole('searchbox');
  await search.focus();
  await page.keyboard.type('hhh');
  check((await api(page, 'GET', '/api/v1/halt')).body.halted === false, 'the key halts nothing while somebody types');
  await goTo(page, `#/runs/${run}`);
  await page.locator('.fault.acts').waitFor();
  await page.locator('h1').click();
  await page.keyboard.press('h');
  await page.locator('.halt-report.good').waitFor();
  check((await page.locator('.halt-report').innerText()).includes('Everything was seen to be gone'), 'the key halts, and says what was seen');
  check(await page.locator('.halt-state').isVisible(), 'the page says that a halt is in force');
  await until('the run is over', async () => (await page.locator('.run-state').innerText()).includes('aborted'));
  check((await page.locator('.owed').innerText()).includes('all was seen to be gone'), 'nothing is left to be reverted');
  const shown = Number((await page.locator('.run-head').innerText()).match(/(\d+) events/)[1]);
  const kept = (await api(page, 'GET', `/api/v1/runs/${run}`)).body.events;
  check(shown === kept, `the page has every event once: ${shown} of ${kept}`);
  await shoot(page, 'halted');
  await page.getByRole('button', { name: 'Resume' }).focus();
  await page.keyboard.press('Enter');
  await page.locator('.halt-state').waitFor({ state: 'detached' });
  check((await api(page, 'GET', '/api/v1/halt')).body.halted === false, 'resumed');
  check((await page.locator('.last-halt').innerText()).includes('gone after'), 'the bar says how long the last halt took');

  // The key can be switched off.
  await goTo(page, '#/settings');
  await page.getByLabel(/halts/).uncheck();
  await page.locator('h1').click();
  await page.keyboard.press('h');
  check((await api(page, 'GET', '/api/v1/halt')).body.halted === false, 'the key can be switched off');
  return run;
}

/** Every view, with hostile text in it. */
async function views(browser, run) {
  const page = await open(browser, 'admin');
  await signIn(page, given.admin);
  const rooms = [['overview', ''], ['runs', 'runs'], ['run', `runs/${run}`], ['game-days', 'game-days'], ['actions', 'actions'], ['experiments', 'experiments'], ['hostile', 'experiments/hostile'], ['schedules', 'schedules'], ['approvals', 'approvals'], ['fleet', 'fleet'], ['agent', `fleet/${given.agent}`], ['audit', 'audit'], ['settings', 'settings']];
  for (const [name, hash] of rooms) {
    await goTo(page, `#/${hash}`);
    await until(`${name} is shown`, async () => (await page.locator('main h1').count()) === 1 && (await page.locator('main .problem').count()) === 0);
    await serious(page, name);
    await shoot(page, name);
  }
  await goTo(page, '#/experiments/hostile');
  await page.locator('h1', { hasText: '<img' }).waitFor();
  check(await page.evaluate(() => document.querySelectorAll('main img, main script, main iframe').length === 0 && globalThis.hit === undefined), 'hostile text is text');
  check((await page.locator('h1').innerText()).includes('\\u{202e}'), 'text that reverses others is shown as its code');
  const unnamed = await page.evaluate(() => [...document.querySelectorAll('button, a, input, select')].filter((one) => !(one.textContent.trim() || one.getAttribute('aria-label') || one.labels?.length)).length);
  check(unnamed === 0, 'everything that can be used has a name');
}

/** What a viewer is offered, and what hand-made requests do. */
async function viewer(browser) {
  const page = await open(browser, 'viewer');
  await signIn(page, given.viewer);
  await page.locator('#halt').waitFor({ state: 'attached' });
  check((await page.getByRole('button', { name: /halt/i }).count()) === 0, 'a viewer is not offered a halt');
  check((await page.getByRole('link', { name: 'Audit' }).count()) === 0, 'a viewer is not offered the audit log');
  await goTo(page, `#/experiments/${given.experiment}`);
  await page.getByRole('button', { name: 'What would it hit?' }).waitFor();
  check((await page.getByRole('button', { name: 'Run it' }).count()) === 0, 'a viewer is not offered a run');
  expectsErrors = true;
  await page.keyboard.press('h');
  check((await api(page, 'POST', '/api/v1/halt', {})).status === 403, 'a hand-made halt of a viewer is refused');
  check((await api(page, 'POST', '/api/v1/session', {})).status === 400, 'a session cannot renew itself');
  expectsErrors = false;
  check((await api(page, 'GET', '/api/v1/halt')).body.halted === false, 'nothing is halted');
}

/** A page of another site, in the browser of an operator who is signed in. */
async function foreign(browser) {
  const page = await open(browser, 'foreign');
  await signIn(page, given.operator);
  const server = createServer((_, answer) => { answer.setHeader('content-type', 'text/html'); answer.end('<!doctype html><title>other</title>'); });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  expectsErrors = true;
  const other = await page.context().newPage();
  await other.goto(`http://127.0.0.1:${server.address().port}/`);
  const results = await other.evaluate(async (url) => {
    const tries = [
      () => fetch(`${url}/api/v1/halt`, { method: 'POST', mode: 'no-cors', credentials: 'include', body: '{}' }),
      () => fetch(`${url}/api/v1/halt`, { method: 'POST', credentials: 'include', headers: { 'x-backburn-page': '1', 'content-type': 'application/json' }, body: '{}' }),
      () => fetch(`${url}/api/v1/runs`, { credentials: 'include' }).then((answer) => answer.text()),
    ];
    return Promise.all(tries.map((one) => one().then((answer) => (typeof answer === 'string' ? 'read' : answer.type), () => 'failed')));
  }, given.url);
  check(!results.includes('read') && !results.includes('basic') && !results.includes('cors'), `another site reads nothing (${results})`);
  // A form needs no permission to send.
  await other.evaluate((url) => {
    const form = document.createElement('form');
    form.method = 'post'; form.action = `${url}/api/v1/halt`; form.enctype = 'text/plain';
    const field = document.createElement('input');
    field.name = '{"why":"'; field.value = '"}';
    form.append(field); document.body.append(form); form.submit();
  }, given.url);
  await other.waitForURL(`${given.url}/**`);
  check((await api(page, 'GET', '/api/v1/halt')).body.halted === false, 'another site halts nothing');
  expectsErrors = false;
  server.close();
}

/** A game day that two people hold, of whom one may not know what it does. */
async function gameDay(browser) {
  const lead = await open(browser, 'lead');
  await signIn(lead, given.operator);
  await goTo(lead, '#/game-days');
  await lead.locator('tr').filter({ has: lead.getByRole('cell', { name: 'day', exact: true }) }).getByRole('button', { name: 'Prepare tabletop' }).focus();
  await lead.keyboard.press('Enter');
  await lead.waitForURL(/#\/game-days\/gd-/);
  const hash = new URL(lead.url()).hash;
  await lead.getByLabel(given.prerequisite).check();
  await until('the prerequisite is met', async () => (await lead.locator('.timeline').innerText()).includes('prerequisite 1 is met'));
  await lead.getByRole('button', { name: 'Begin' }).click();
  await until('the day goes on', async () => (await lead.locator('.run-head').innerText()).includes('running'));

  const participant = await open(browser, 'participant');
  await signIn(participant, given.blind);
  check((await participant.getByRole('link', { name: 'Experiments' }).count()) === 0, 'a participant is not offered experiments');
  await goTo(participant, hash);
  await participant.getByRole('heading', { name: 'Steps' }).waitFor();
  const hidden = async () => !(await participant.locator('body').innerText()).includes(given.secret);
  check((await lead.locator('body').innerText()).includes(given.secret) && await hidden(), 'a participant does not see what the step does');

  // A mark by one key, which the other sees within a second; its time is corrected, and both times are kept.
  await participant.locator('.timeline li').first().waitFor();
  const began = Date.now();
  await lead.locator('h1').click();
  await lead.keyboard.press('d');
  await participant.locator('.mark', { hasText: 'detected' }).waitFor();
  console.log(`ok: a mark was seen by another browser after ${Date.now() - began} ms`);
  await lead.locator('.mark').getByRole('button', { name: 'Correct the time' }).click();
  await lead.getByLabel('When it really happened').fill(new Date(Date.now() - 60_000).toISOString());
  await lead.keyboard.press('Enter');
  await participant.locator('.mark', { hasText: 'corrected by' }).waitFor();

  await participant.getByLabel('Add').fill('<b>The checkout</b> is slow');
  await participant.keyboard.press('Enter');
  await lead.locator('.timeline', { hasText: '<b>The checkout</b> is slow' }).waitFor();
  await lead.getByText('Status update', { exact: true }).click();
  await lead.getByLabel('Impact').first().fill('Paying takes a minute');
  await lead.getByLabel('Next update in minutes').first().fill('5');
  await lead.getByRole('button', { name: 'Send' }).first().click();
  await until('the page says when the next update is due', async () => (await lead.locator('body').innerText()).includes('The next status update is due in 4 min'));
  check((await lead.locator('.timeline li', { hasText: 'Status update' }).getByRole('button').count()) === 0, 'the time of a status update cannot be corrected, and nobody is offered that');
  await serious(lead, 'a game day');
  await serious(participant, 'a game day for a participant');
  await shoot(lead, 'game-day');
  await shoot(participant, 'participant');
  check(await hidden(), 'a participant still does not see it');
  await lead.getByRole('button', { name: 'Reveal everything' }).click();
  await until('what is revealed is seen', async () => !(await hidden()));
  await lead.getByRole('button', { name: 'Stop the day' }).click();
  await until('the day is over for both', async () => (await lead.locator('.run-head').innerText()).includes('ended') && (await participant.locator('.run-head').innerText()).includes('ended'));

  // The report, for who may know what facilitators know: a page of its own that needs no script.
  check((await participant.getByRole('link', { name: 'The report of this game day' }).count()) === 0, 'a participant is not offered the report');
  const opening = lead.context().waitForEvent('page');
  await lead.getByRole('link', { name: 'The report of this game day' }).click();
  const report = await opening;
  watch(report, 'report');
  await report.waitForLoadState();
  const headings = await report.getByRole('heading', { level: 2 }).allInnerTexts();
  check(headings.length === 13 && headings[0].startsWith('1. ') && headings[12].startsWith('13. '), `the report has its thirteen sections (${headings.length})`);
  const said = await report.locator('body').innerText();
  check(said.includes(given.secret) && said.includes('<b>The checkout</b> is slow') && said.includes('Paying takes a minute'), 'the report has the step, the note and the update, as text');
  check((await report.locator('script').count()) === 0 && (await report.locator('body b', { hasText: 'The checkout' }).count()) === 0, 'nothing in the report is a script, and nothing that people wrote is markup');
  const wide = await report.locator('body').evaluate((body) => body.scrollWidth - body.clientWidth);
  check(wide <= 0, `nothing is wider than the report's window (${wide})`);
  check(said.includes('No objective is named, and nothing was measured.') && (await report.locator('table', { hasText: 'Objective' }).count()) === 0, 'no table of the report is empty');
  if (shots) await report.screenshot({ path: join(shots, 'game-day-report.png'), fullPage: true });
}

/** A run with more samples than are drawn: everything that matters of it is there, and it is said how many points stand for how many. */
async function long(browser) {
  const page = await open(browser, 'long');
  await signIn(page, given.admin);
  await goTo(page, `#/runs/${given.run}`);
  await page.locator('.probe canvas').first().waitFor();
  const events = (await api(page, 'GET', `/api/v1/runs/${given.run}`)).body.events;
  await until('the page says how many events there are', async () => (await page.locator('.run-head').innerText()).includes(`${events} events`));
  const said = await page.locator('.sentence').allInnerTexts();
  check(said.length === given.probes, `every probe has a chart (${said.length})`);
  const [, points] = said[0].match(new RegExp(`^${given.each} samples, drawn as (\\d+) of them: the first, the last, the extremes`)) ?? [];
  check(points > 1000 && points <= 2000, `it is said how many points stand for how many samples (${said[0]})`);
  check(said.every((one) => one.includes(' 10 outside, 0 unknown')), 'all failures are counted');
  check((await page.locator('.timeline li', { hasText: 'is outside its tolerance' }).count()) === given.probes, 'the timeline has when each probe failed');
  check((await page.locator('.faults .fault').innerText()).includes('seen to be gone'), 'the fault and its end are shown');

  // What is drawn has each spike and each failure, after every step that leaves samples out: the server's, the model's and the chart's.
  const kept = await page.evaluate(async ([run, spike]) => {
    const [{ RunModel }, { standing, at }] = await Promise.all([import('/assets/run_model.js'), import('/assets/series.js')]);
    const condensed = await (await fetch(`/api/v1/runs/${run}/condensed`, { headers: { 'x-backburn-page': '1' } })).json();
    const model = new RunModel();
    model.open(condensed, performance.now());
    // It goes on for long: many more samples, within and quick, and one that is not.
    for (let number = 1; number <= 30_000; number += 1) {
      const isLow = number === 12_345;
      model.take({ event: 'sampled', at: '2026-11-01T12:00:00Z', elapsed: condensed.elapsed + number / 5, probe: [...model.probes.keys()][0], hypothesis: true,
        judgement: isLow ? 'unknown' : 'within', output: isLow ? -77 : 100, took: '5ms' }, performance.now());
    }
    const [first, second] = [...model.probes.values()];
    const drawn = (probe, ys) => {
      const places = standing(probe.x, [ys], probe.judgement, 2_000);
      return { ys: at(ys, places), judgements: at(probe.judgement, places), count: (places ?? ys).length };
    };
    const [values, times] = [drawn(first, first.value), drawn(second, second.took)];
    return {
      kept: first.x.length, counts: first.counts, count: values.count, isSorted: first.x.every((x, place) => place === 0 || x >= first.x[place - 1]),
      spike: values.ys.includes(spike), low: values.ys.includes(-77), slow: times.ys.includes(4321), outside: values.judgements.includes('outside'), unknown: values.judgements.includes('unknown'),
    };
  }, [given.run, given.spike]);
  check(kept.kept <= 8_000 && kept.count <= 2_000 && kept.isSorted, `memory is bounded (${kept.kept} kept, ${kept.count} drawn)`);
  check(kept.counts.within + kept.counts.outside + kept.counts.unknown === given.each + 30_000, 'every sample counts');
  check(kept.spike && kept.low && kept.slow && kept.outside && kept.unknown, `no spike and no failure is hidden (${JSON.stringify(kept)})`);
  await serious(page, 'a long run');
  await shoot(page, 'long');

  // The last notes are listed, and how many are not.
  await until('notes are listed, and it is said how many are not', async () => (await page.locator('section', { hasText: 'Notes and marks' }).innerText()).includes('100 earlier ones are not listed here'));
}

/** The page of one run on this host: its address is good once. */
async function local(browser) {
  const page = await open(browser, 'local');
  await page.goto(given.url + given.fragment);
  await page.locator('.fault').first().waitFor();
  check(!page.url().includes('token'), 'the secret is not in the address any more');
  check((await page.getByRole('button', { name: 'Halt this run' }).count()) === 1, 'the run can be halted');
  await page.locator('.probe canvas').first().waitFor();
  await serious(page, 'a local run');
  await shoot(page, 'local');
  expectsErrors = true;
  const second = await open(browser, 'second');
  await second.goto(given.url + given.fragment);
  await second.locator('.problem', { hasText: 'used before' }).waitFor();
  check((await page.request.get(given.url.replace('127.0.0.1', 'localhost'))).status() === 200, 'it is served as localhost, too');
  check((await page.request.get(`${given.url}/api/v1/runs`, { headers: { host: 'evil.example.org' } })).status() === 421, 'it is not served under another name');
  expectsErrors = false;
  await page.reload();
  await page.locator('.fault.acts').waitFor();
  // The program ends after the run.
  expectsErrors = true;
  await page.keyboard.press('h');
  await page.locator('.halt-report.good').waitFor();
  await until('the verdict is shown', async () => (await page.locator('.run-state').innerText()).includes('aborted'));
  expectsErrors = true;
}

const { browser, end } = await launch();
try {
  if (given.play === 'local') await local(browser);
  else if (given.play === 'long') await long(browser);
  else {
    given.url = await startWay(given.url);
    const run = await fleet(browser);
    await views(browser, run);
    await viewer(browser);
    await foreign(browser);
    if (given.blind) await gameDay(browser);
    if (given.drill) await liveDay(browser, { open, signIn, goTo, until, check, serious, shoot, watch, expectErrors: (are) => { expectsErrors = are; } }, given);
  }
  check(complaints.length === 0, `the console has no complaint${complaints.map((one) => `\n  ${one}`).join('')}`);
} catch (error) {
  console.error(error.stack);
  if (shots) for (const [at, page] of browser.contexts().flatMap((one) => one.pages()).entries()) await page.screenshot({ path: join(shots, `failed-${at}.png`) }).catch(() => {});
  process.exitCode = 1;
} finally {
  await end();
  way.close?.();
}
