// Runs that wait for another person, with what would be hit.

import { button, facts, fill, h, link as to, nothing, table, title, when } from './dom.js';
import { get, path, post } from './api.js';
import { planView } from './experiments.js';

export async function show(place, context, [id]) {
  if (id !== undefined) return approval(place, context, id);
  const list = h('div', {});
  fill(place, title('Approvals'), list);
  await context.refresh(async () => {
    const found = await get('approvals');
    fill(list, found.length === 0 ? nothing('No run waits for an approval.')
      : table('Waiting runs', ['Run', 'Requested by', 'Since', 'Until', 'Rule'], found.map((one) => [to(['approvals', one.id], one.title || one.experiment), `${one.who} (${one.person})`, when(one.at), when(one.expires), one.rule])));
  });
}

async function approval(place, context, id) {
  const one = await get(path('approvals', id));
  const isOwn = one.person === context.session.person;
  const why = h('input', { id: 'why', type: 'text', maxlength: '500' });
  const act = [];
  if (context.may('operator')) {
    if (isOwn) {
      act.push(h('p', {}, 'You have requested this run, so another person must approve it.'), button('Withdraw', async () => { await post(`${path('approvals', id)}/withdraw`); location.hash = '#/approvals'; }));
    } else {
      act.push(button('Approve exactly this plan', async () => {
        const begun = await post(`${path('approvals', id)}${one.fingerprint ? `?plan=${one.fingerprint}` : ''}`, undefined, { timeout: 60_000 });
        location.hash = `#/${path('runs', begun.run)}`;
      }, { class: 'primary' }),
      h('span', { class: 'reject' }, h('label', { for: 'why' }, 'Reason '), why, button('Reject', async () => { await post(`${path('approvals', id)}/reject`, why.value ? { why: why.value } : {}); location.hash = '#/approvals'; })));
    }
  }
  fill(place, title(one.title || one.experiment), facts([['Experiment', [to(['experiments', one.experiment], one.experiment), ` version ${one.version}`]], ['Requested by', `${one.who} (${one.person})`], ['At', when(one.at)], ['Waits until', when(one.expires)], ['Rule', one.rule],
    ['Variables', Object.keys(one.variables).length > 0 ? JSON.stringify(one.variables) : null], ['Fingerprint', one.fingerprint ? h('code', {}, one.fingerprint.slice(0, 16)) : null]]),
  h('div', { class: 'actions' }, act), one.plan ? planView(one.plan) : nothing('What it would do is not known.'));
}
