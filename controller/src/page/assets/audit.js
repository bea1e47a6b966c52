// The audit log, latest first.

import { button, fill, h, nothing, table, title, when } from './dom.js';
import { get } from './api.js';

const PAGE = 200;

export async function show(place, context) {
  const chain = await get('audit/chain', { timeout: 60_000 });
  const list = h('div', {});
  let from = Math.max(0, chain.number - PAGE);
  let entries = [];
  const read = async (after, limit) => (await get(`audit?after=${after}&limit=${limit}`)).reverse();
  const draw = () => {
    fill(list, entries.length === 0 ? nothing('Nothing was done yet.') : table('Audit log', ['No.', 'At', 'Who', 'Role', 'What', 'About', 'Outcome', 'Detail'],
      entries.map((one) => [String(one.number), when(one.at), one.who, one.role ?? '–', one.what, one.about, one.outcome, h('code', {}, JSON.stringify(one.detail))])));
    older.hidden = from === 0;
  };
  const older = button('Earlier entries', async () => {
    const until = from;
    from = Math.max(0, from - PAGE);
    entries.push(...await read(from, until - from));
    draw();
  }, { class: 'small' });
  fill(place, title('Audit'), chain.broken ? h('p', { class: 'bad' }, `✗ The log is broken: ${chain.broken}`) : h('p', { class: 'good' }, `✓ The chain of ${chain.number} entries is intact`),
    h('p', { class: 'dim' }, 'Head, to be kept elsewhere: ', h('code', {}, chain.head)), list, older);
  entries = await read(from, PAGE);
  draw();
  await context.refresh(async () => {
    const fresh = await read(entries[0]?.number ?? from, 1000);
    if (fresh.length > 0) { entries.unshift(...fresh); draw(); }
  }, 5_000);
}
