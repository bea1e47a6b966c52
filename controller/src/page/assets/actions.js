// What will be done about what runs have found, overdue first; and what services have been shown to survive.

import { button, fill, h, link as to, nothing, section, table, title, when } from './dom.js';
import { get, path, post } from './api.js';

const SEVERITIES = ['low', 'medium', 'high', 'critical'];
const SIGNS = { overdue: ['bad', '! overdue'], open: ['', '○ open'], closed: ['good', '✓ closed'] };

export async function show(place, context) {
  const parts = { list: h('div', {}), coverage: h('div', {}) };
  let actions = [];
  const read = async () => { actions = await get('actions'); draw(); };
  const draw = () => {
    const key = JSON.stringify(actions);
    if (key === parts.key) return;
    parts.key = key;
    const order = ['overdue', 'open', 'closed'];
    const sorted = actions.slice().sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state) || String(a.due ?? '~').localeCompare(String(b.due ?? '~')));
    fill(parts.list, sorted.length === 0 ? nothing('None yet.') : table('Actions', ['No.', 'What', 'Owner', 'Due', 'Severity', 'Proved by', 'State', ''], sorted.map((one) => [
      String(one.id), one.title, one.owner, one.due ?? '–', one.severity,
      [one.experiment ? to(['experiments', one.experiment], one.experiment) : '–', one['proved-by'] ? h('div', {}, to(['runs', one['proved-by']], one['proved-by'])) : null, one.proposed ? h('div', { class: 'warn' }, 'run it now') : null],
      [h('span', { class: SIGNS[one.state]?.[0] ?? '' }, SIGNS[one.state]?.[1] ?? one.state), one.closed ? h('div', {}, when(one.closed)) : null],
      context.may('operator') && one.state !== 'closed' ? button('Close', async () => { await post(`${path('actions', String(one.id))}/close`); await read(); }, { class: 'small' }) : ''])));
  };
  fill(place, title('Actions'), h('p', { class: 'dim' }, 'An action that names an experiment closes only by a run of it that held after the action was added.'),
    parts.list, context.may('operator') ? form(read) : null, section('Shown to survive', parts.coverage));
  await context.refresh(read, 5_000);
  const covered = await get('coverage');
  fill(parts.coverage, covered.length === 0 ? nothing('No service has been hit yet.') : table('Coverage', ['Service', 'Fault', 'Survived', 'Trust', 'Latest', 'Never tried'], covered.flatMap((one) => (one.tried.length > 0 ? one.tried : [null]).map((tried, at) => [
    at === 0 ? one.service : '', tried?.fault ?? '–', tried ? h('span', { class: tried.survived ? 'good' : 'bad' }, tried.survived ? '✓ yes' : '✗ no') : '–', tried ? `${Math.round(tried.trust * 100)} %` : '–',
    tried ? when(tried['held-at'] ?? tried['deviated-at']) : '–', at === 0 ? one.never.join(', ') : '']))));
}

function form(read) {
  const field = (id, label, attributes) => [h('label', { for: id }, label), h('input', { id, autocomplete: 'off', ...attributes })];
  const [what, owner, due, experiment] = [field('action-title', 'What will be done', { type: 'text', required: true }), field('action-owner', 'Owner', { type: 'text', required: true }), field('action-due', 'Due', { type: 'date' }), field('action-experiment', 'Experiment that proves it', { type: 'text' })];
  const severity = h('select', { id: 'action-severity' }, SEVERITIES.map((one) => h('option', { value: one, selected: one === 'medium' }, one)));
  const submit = button('Add the action', async () => {
    const action = { title: what[1].value.trim(), owner: owner[1].value.trim(), severity: severity.value };
    if (due[1].value) action.due = due[1].value;
    if (experiment[1].value.trim()) action.experiment = experiment[1].value.trim();
    await post('actions', action);
    element.reset();
    await read();
  });
  const element = h('form', { class: 'update narrow' }, what, owner, due, h('label', { for: 'action-severity' }, 'Severity'), severity, experiment, submit);
  element.addEventListener('submit', (event) => { event.preventDefault(); submit.click(); });
  return h('details', {}, h('summary', {}, 'Add an action'), element);
}
