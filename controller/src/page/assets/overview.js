// What goes on now, and what waits for somebody.

import { fill, h, link as to, nothing, section, table, title, when } from './dom.js';
import { all, get } from './api.js';
import { RUN_COLUMNS, rowsOf } from './runs.js';
import { needsAttention } from './fleet.js';

export async function show(place, context) {
  const parts = { open: h('div', {}), waiting: h('div', {}), fleet: h('div', {}), next: h('div', {}), recent: h('div', {}) };
  fill(place, title('Overview'), section('Running now', parts.open), section('Waiting for approval', parts.waiting), section('Fleet', parts.fleet),
    section('Next scheduled', parts.next), section('Latest runs', parts.recent));
  await context.refresh(async () => {
    const [runs, approvals, schedules] = await Promise.all([get('runs?limit=20'), get('approvals'), get('schedules?count=1')]);
    const open = runs.filter((run) => run.state === 'open');
    fill(parts.open, open.length === 0 ? nothing('No run is open.') : table('Open runs', RUN_COLUMNS, rowsOf(open)));
    fill(parts.waiting, approvals.length === 0 ? nothing('No run waits.') : table('Waiting runs', ['Run', 'Requested by', 'Since', 'Rule'], approvals.map((one) => [to(['approvals', one.id], one.title || one.experiment), one.who, when(one.at), one.rule])));
    const next = schedules.filter((one) => one.times.length > 0).sort((a, b) => (a.times[0] < b.times[0] ? -1 : 1)).slice(0, 5);
    fill(parts.next, next.length === 0 ? nothing('Nothing is scheduled.') : table('Next scheduled runs', ['Experiment', 'At'], next.map((one) => [to(['experiments', one.experiment], one.experiment), when(one.times[0])])));
    const over = runs.filter((run) => run.state === 'over').slice(0, 10);
    fill(parts.recent, over.length === 0 ? nothing('No run is over yet.') : table('Latest runs', RUN_COLUMNS, rowsOf(over)));
  });
  await context.refresh(async () => {
    const agents = (await all('agents', (agent) => agent.name, 'after')).filter((agent) => agent.revoked === null);
    const bad = agents.filter(needsAttention);
    fill(parts.fleet, h('p', {}, `${agents.filter((agent) => agent.connected).length} of ${agents.length} agents are connected. `, to(['fleet'], 'All agents')),
      bad.length === 0 ? null : h('ul', {}, bad.slice(0, 20).map((agent) => h('li', { class: 'bad' }, to(['fleet', agent.name], agent.name), agent.owed.length > 0 ? ` owes ${agent.owed.length}` : '', agent.unresponsive ? ' does not answer' : '', agent.duplicate ? ' has a double' : ''))));
  }, 15_000);
}
