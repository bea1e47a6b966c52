// Agents: who is there, what they can do, what they owe, and what their hosts offer.

import { button, facts, fill, h, link as to, nothing, section, table, title, when } from './dom.js';
import { all, get, path } from './api.js';

/** How many agents are shown at a time. */
const PAGE = 200;

/** Whether a person should look at this agent. */
export const needsAttention = (agent) => agent.owed.length > 0 || agent.unresponsive || agent.duplicate !== null;

const labels = (of) => Object.entries(of).map(([name, value]) => h('span', { class: 'label' }, `${name}=${value}`));

const state = (agent) => {
  if (agent.revoked) return h('span', { class: 'dim' }, 'revoked');
  if (agent.unresponsive) return h('span', { class: 'bad' }, '✗ does not answer');
  return agent.connected ? h('span', { class: 'good' }, '● connected') : h('span', { class: 'warn' }, '○ not connected');
};

export async function show(place, context, [name]) {
  if (name !== undefined) return agent(place, context, name);
  let agents = [];
  let most = PAGE;
  const list = h('div', {});
  const count = h('p', { class: 'dim', role: 'status' });
  const search = h('input', { type: 'search', id: 'search', oninput: () => { most = PAGE; draw(); } });
  const more = h('button', { type: 'button', class: 'small', onclick: () => { most += PAGE; draw(); } }, 'More');
  const draw = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter((word) => word !== '');
    const text = (one) => `${one.name} ${Object.entries(one.labels).map(([k, v]) => `${k}=${v}`).join(' ')} ${one.faults.join(' ')} ${one.connected ? 'connected' : 'absent'} ${one.owed.length > 0 ? 'owes' : ''}`.toLowerCase();
    const found = agents.filter((one) => words.every((word) => text(one).includes(word))).sort((a, b) => needsAttention(b) - needsAttention(a));
    fill(count, `${found.length} of ${agents.length} agents; ${agents.filter((one) => one.connected).length} connected, ${agents.filter(needsAttention).length} need a person`);
    fill(list, found.length === 0 ? nothing(agents.length === 0 ? 'No agent has joined. `backburn join-token` makes the token that one joins with.' : 'None fits.')
      : table('Agents', ['Agent', 'State', 'Labels', 'Runs', 'Owes', 'Heard', 'Version'], found.slice(0, most).map((one) => [
        to(['fleet', one.name], one.name), [state(one), one.duplicate ? h('div', { class: 'bad' }, `two hosts use it: ${one.duplicate.address}`) : null], labels(one.labels),
        one.runs.map((run) => h('div', {}, to(['runs', run], run))), one.owed.length === 0 ? '–' : h('span', { class: 'bad' }, `! ${one.owed.length}`), when(one.heard), one.version ?? '–'])));
    more.hidden = found.length <= most;
  };
  fill(place, title('Fleet'), h('p', {}, h('label', { for: 'search' }, 'Filter by name, label or fault '), search), count, list, more);
  await context.refresh(async () => { agents = shared(await all('agents', (one) => one.name, 'after')); draw(); }, 5_000);
}

/** The same agents; those that have the same faults share the list of their names, which is most of what is known of many agents. */
function shared(agents) {
  const lists = new Map();
  for (const one of agents) {
    const key = one.faults.join(' ');
    if (!lists.has(key)) lists.set(key, one.faults);
    one.faults = lists.get(key);
  }
  return agents;
}

async function agent(place, context, name) {
  const parts = { facts: h('div', {}), owed: h('div', {}), doctor: h('div', {}), faults: h('div', {}) };
  fill(place, title(name), parts.facts, section('Owes', parts.owed), section('Doctor', parts.doctor), section('Faults', parts.faults));
  await context.refresh(async () => {
    const one = await get(path('agents', name));
    fill(parts.facts, facts([['State', state(one)], ['Labels', labels(one.labels)], ['Facts', labels(one.facts ?? {})], ['Address', one.address], ['Version', one.version], ['Joined', when(one.joined)],
      ['Heard', when(one.heard)], ['Runs', one.runs.map((run) => [to(['runs', run], run), ' '])], ['Two hosts use its identity', one.duplicate ? h('span', { class: 'bad' }, one.duplicate.address) : null]]));
    fill(parts.owed, one.owed.length === 0 ? nothing('Nothing.') : table('What the agent owes', ['Fault', 'Injection', 'Still there'], one.owed.map((owed) => [owed.fault, h('code', {}, owed.injection), owed.residue.map((line) => h('div', {}, line))])));
    parts.known ??= fill(parts.faults, one.faults.length === 0 ? nothing('It is not connected.') : h('ul', { class: 'wide' }, one.faults.map((fault) => h('li', {}, fault))));
  }, 5_000);
  fill(parts.doctor, button('Examine the host', async () => {
    const found = await get(`${path('agents', name)}/doctor`, { timeout: 40_000 });
    const signs = { yes: ['good', '✓ yes'], no: ['bad', '✗ no'], partly: ['warn', '~ partly'] };
    fill(parts.doctor, table('What the host offers', ['Feature', 'There', 'Seen', 'What would help'], found.map((one) => [one.name, h('span', { class: signs[one.ok]?.[0] ?? '' }, signs[one.ok]?.[1] ?? one.ok), one.seen, one.hint ?? ''])));
  }));
}

