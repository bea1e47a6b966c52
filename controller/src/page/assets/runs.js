// Runs, newest first.

import { badge, fill, h, link as to, nothing, table, title, when } from './dom.js';
import { get } from './api.js';

const OUTCOMES = ['held', 'deviated', 'not-clean', 'aborted', 'inconclusive', 'not-started', 'not-injected'];
const PAGE = 100;

/** The rows of a table of runs. */
export const rowsOf = (runs, isLocal) => runs.map((run) => [
  to(['runs', run.id], run.title), badge(run.state === 'over' ? run.outcome : run.state),
  run.experiment && !isLocal ? to(['experiments', run.experiment], run.experiment) : '–', when(run.started), run.ended ? when(run.ended) : '–', run.who]);

export const RUN_COLUMNS = ['Run', 'Verdict', 'Experiment', 'Started', 'Ended', 'Requested by'];

export async function show(place, context) {
  const list = h('div', {});
  const pick = h('select', { id: 'outcome', onchange: () => { older = []; read(); } }, h('option', { value: '' }, 'all'), OUTCOMES.map((outcome) => h('option', { value: outcome }, outcome)));
  let older = [];
  const more = h('button', { type: 'button', class: 'small', onclick: async () => { older.push(...await page(last()?.id)); draw(); } }, 'Older runs');
  let newest = [];
  const last = () => (older.length > 0 ? older : newest).at(-1);
  const page = (before) => get(`runs?limit=${PAGE}${before ? `&before=${encodeURIComponent(before)}` : ''}${pick.value ? `&outcome=${pick.value}` : ''}`);
  const draw = () => {
    const known = new Set(newest.map((run) => run.id));
    const runs = [...newest, ...older.filter((run) => !known.has(run.id))];
    fill(list, runs.length === 0 ? nothing('No runs yet.') : table('Runs', RUN_COLUMNS, rowsOf(runs, context.session.local)));
    more.hidden = runs.length < PAGE || runs.length % PAGE !== 0;
  };
  const read = async () => { newest = await page(); draw(); };
  fill(place, title('Runs'), context.session.local ? null : h('p', {}, h('label', { for: 'outcome' }, 'Verdict '), pick), list, more);
  await context.refresh(read);
}
