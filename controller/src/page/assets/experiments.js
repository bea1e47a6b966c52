// Stored experiments: what they say, what they would hit, their versions, schedule, and how their runs went.

import { badge, button, facts, fill, h, inSeconds, json, length, link as to, nothing, problem, section, seconds, table, title, when } from './dom.js';
import { all, get, path, post } from './api.js';
import { trend } from './charts.js';
import { upcoming } from './schedules.js';

export async function show(place, context, [name]) {
  if (name !== undefined) return experiment(place, context, name);
  const list = h('div', {});
  fill(place, title('Experiments'), list);
  await context.refresh(async () => {
    const found = await all('experiments', (one) => one.name, 'after');
    fill(list, found.length === 0 ? nothing('None is stored. `backburn apply FILE` stores one.')
      : table('Experiments', ['Name', 'Claim', 'Version', 'Stored by', 'At', 'Schedule'], found.map((one) => [to(['experiments', one.name], one.name), one.document.title ?? '', String(one.version), one.who, when(one.at), one.document.schedule ? '✓' : '–'])));
  }, 10_000);
}

async function experiment(place, context, name) {
  const [stored, versions] = await Promise.all([get(path('experiments', name)), get(`${path('experiments', name)}/versions`)]);
  const document_ = stored.document;
  const parts = { plan: h('div', {}), runs: h('div', {}), trend: h('div', {}), versions: h('div', {}), diff: h('div', {}), schedule: h('div', {}) };
  const mayRun = context.may('operator');
  fill(place, title(document_.title ?? name), h('p', {}, document_.description ?? ''),
    facts([['Name', name], ['Version', `${stored.version}, stored by ${stored.who}`], ['At', when(stored.at)], ['Labels', (document_.tags ?? []).join(', ')], ['Hypothesis', document_['steady-state-hypothesis']?.title]]),
    h('div', { class: 'actions' }, button('What would it hit?', async () => fill(parts.plan, planView(await post(`${path('experiments', name)}/plan`, {}, { timeout: 60_000 })))),
      mayRun ? button('Run it', async () => {
        const begun = await post(`${path('experiments', name)}/runs`, { version: stored.version });
        location.hash = begun.run ? `#/${path('runs', begun.run)}` : `#/${path('approvals', begun.approval.id)}`;
      }, { class: 'primary' }) : null),
    parts.plan, section('Runs', parts.trend, parts.runs), document_.schedule ? section('Schedule', parts.schedule) : null,
    section('Versions', parts.versions, parts.diff), section('Document', json(document_)));
  fill(parts.versions, table('Versions', ['Version', 'Stored by', 'At', ''], versions.slice().reverse().map((one) => [one.removed ? `${one.version} (removed)` : String(one.version), one.who, when(one.at),
    one.version > 1 && !one.removed ? button(`Compare with ${one.version - 1}`, () => compare(parts.diff, name, one.version), { class: 'small' }) : ''])));
  await context.refresh(() => showRuns(parts, name), 10_000);
  if (document_.schedule) {
    await context.refresh(async () => {
      const found = (await get('schedules?count=10')).filter((one) => one.experiment === name);
      fill(parts.schedule, found.length === 0 ? nothing('It is not in force.') : found.map((one) => upcoming(one, context)));
    }, 10_000);
  }
}

async function showRuns(parts, name) {
  const runs = (await get(`runs?limit=50&experiment=${encodeURIComponent(name)}`)).filter((run) => run.state !== 'waiting-for-approval');
  const key = runs.map((run) => run.id + run.state).join();
  if (key === parts.key) return;
  parts.key = key;
  const measured = runs.filter((run) => run.verdict).reverse().map((run) => ({
    run, outage: (run.verdict.outages ?? []).reduce((sum, [, outage]) => sum + outage.until - outage.from, 0),
    recovery: run.verdict.recovered_after ? inSeconds(run.verdict.recovered_after) : null,
  }));
  parts.plot?.destroy();
  fill(parts.trend);
  if (measured.length > 1) {
    const sorted = measured.map((one) => one.outage).sort((a, b) => a - b);
    const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
    const held = measured.filter((one) => one.run.outcome === 'held').length;
    fill(parts.trend, h('p', {}, `${held} of the last ${measured.length} runs held. Outage: median ${seconds(at(0.5))}, longest ${seconds(sorted.at(-1))}.`),
      h('div', { class: 'strip', 'aria-hidden': 'true' }, measured.map((one) => badge(one.run.outcome))));
    const plot = h('div', { class: 'plot', 'aria-hidden': 'true' });
    parts.trend.append(plot);
    parts.plot = trend(plot, measured);
  }
  const rows = runs.map((run) => {
    const one = measured.find((of) => of.run === run);
    return [to(['runs', run.id], run.id), badge(run.state === 'over' ? run.outcome : run.state), `${run.version}`, when(run.started), one ? seconds(one.outage) : '–', one?.recovery != null ? seconds(one.recovery) : '–'];
  });
  fill(parts.runs, rows.length === 0 ? nothing('It has not run yet.') : table('Runs of this experiment', ['Run', 'Verdict', 'Version', 'Started', 'Outage', 'Held again after'], rows));
}

/** What a run would affect. */
export function planView(plan) {
  const rows = plan.injections.map((one) => [one.activity, one.agent, one.fault, one.duration ? length(one.duration) : 'once',
    one.refusal ? h('span', { class: 'bad' }, `✗ refused: ${one.refusal.what}`) : (one.plan?.victims ?? []).map((victim) => h('div', {}, victim.name)),
    (one.plan?.changes ?? []).map((change) => h('div', {}, change.apply, h('div', { class: 'dim' }, `undone by: ${change.undo}`)))]);
  const warnings = [...plan.warnings, ...plan.injections.flatMap((one) => one.plan?.warnings ?? [])];
  return h('section', { class: 'plan' }, h('h2', {}, 'What would be hit'),
    h('p', {}, `${plan.agents.length} ${plan.agents.length === 1 ? 'agent' : 'agents'}: ${plan.agents.slice(0, 50).join(', ')}; seed ${plan.seed}`),
    warnings.map((warning) => h('p', { class: 'warn' }, `! ${warning}`)),
    (plan.missing ?? []).map((one) => h('p', { class: 'bad' }, `✗ ${one.at}: ${one.what}`)),
    rows.length === 0 ? nothing('Nothing is injected.') : table('What would be hit', ['Action', 'Agent', 'Fault', 'For', 'Whom', 'What is done'], rows.slice(0, 300)),
    plan.looks.length === 0 ? null : h('p', { class: 'dim' }, plan.looks.map((one) => `${one.probe}: ${(one['at-least'] ?? one.at_least) ? 'at least' : 'about'} ${one.looks} checks, which would rule out failure rates above ${((one['upper-bound'] ?? one.upper_bound) * 100).toPrecision(2)} %. `)));
}

async function compare(place, name, version) {
  const of = (number) => get(`${path('experiments', name)}?version=${number}`);
  try {
    const [before, after] = await Promise.all([of(version - 1), of(version)]);
    const lines = difference(JSON.stringify(before.document, null, 2).split('\n'), JSON.stringify(after.document, null, 2).split('\n'));
    fill(place, h('h3', {}, `From version ${version - 1} to ${version}`), h('pre', { class: 'diff', tabindex: '0' }, lines.map(([sign, text]) => h('span', { class: { '+': 'good', '-': 'bad', ' ': 'dim' }[sign] }, `${sign} ${text}\n`))));
  } catch (error) {
    fill(place, problem(error));
  }
}

/** The lines of two texts: what is in both, only in the first (`-`), only in the second (`+`); unchanged ones only near changes. */
export function difference(before, after, near = 3) {
  let start = 0;
  while (start < before.length && start < after.length && before[start] === after[start]) start += 1;
  let end = 0;
  while (end < before.length - start && end < after.length - start && before.at(-1 - end) === after.at(-1 - end)) end += 1;
  const [a, b] = [before.slice(start, before.length - end), after.slice(start, after.length - end)];
  const found = before.slice(0, start).map((line) => [' ', line]);
  if (a.length * b.length > 4_000_000) {
    found.push(...a.map((line) => ['-', line]), ...b.map((line) => ['+', line]));
  } else {
    const common = Array.from({ length: a.length + 1 }, () => new Uint32Array(b.length + 1));
    for (let i = a.length - 1; i >= 0; i -= 1) for (let j = b.length - 1; j >= 0; j -= 1) common[i][j] = a[i] === b[j] ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
    let [i, j] = [0, 0];
    while (i < a.length || j < b.length) {
      if (i < a.length && j < b.length && a[i] === b[j]) { found.push([' ', a[i]]); i += 1; j += 1; }
      else if (i < a.length && (j === b.length || common[i + 1][j] >= common[i][j + 1])) { found.push(['-', a[i]]); i += 1; }
      else { found.push(['+', b[j]]); j += 1; }
    }
  }
  found.push(...before.slice(before.length - end).map((line) => [' ', line]));
  const changed = found.map(([sign]) => sign !== ' ');
  return found.filter((_, at) => changed.slice(Math.max(0, at - near), at + near + 1).some(Boolean));
}
