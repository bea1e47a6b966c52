// Scheduled runs: the next times on a calendar, and pausing.

import { button, fill, h, link as to, nothing, section, table, title, when } from './dom.js';
import { get, path, post } from './api.js';

const WEEKS = 4;
const DAY = 86_400_000;

/** A schedule with its next times. */
export function upcoming(one, context) {
  const act = context.may('operator') ? (one.paused
    ? button('Resume', async () => { await post(`${path('schedules', one.experiment)}/resume`); }, { class: 'small' })
    : button('Pause', async () => { await post(`${path('schedules', one.experiment)}/pause`, {}); }, { class: 'small' })) : null;
  return h('div', { class: 'schedule' }, h('p', {}, h('code', {}, JSON.stringify(one.schedule)), ` (${one['time-zone']}), with the rights of ${one.who} `, act),
    one.paused ? h('p', { class: 'warn' }, `Paused by ${one.paused.who} `, when(one.paused.at), one.paused.why ? `: ${one.paused.why}` : '') : null,
    one.stopped ? h('p', { class: 'bad' }, one.stopped) : null,
    one.times.length > 0 ? h('p', {}, 'Next: ', one.times.slice(0, 5).map((at, index) => [index > 0 ? ', ' : '', when(at)])) : null);
}

function calendar(schedules) {
  const today = new Date();
  today.setHours(0, 0, 0, 0);
  const first = new Date(today.getTime() - ((today.getDay() + 6) % 7) * DAY);
  const days = new Map();
  for (const one of schedules) {
    for (const at of one.times) {
      const key = new Date(at).toDateString();
      days.set(key, [...(days.get(key) ?? []), [at, one.experiment]]);
    }
  }
  const name = new Intl.DateTimeFormat(undefined, { weekday: 'short' });
  const short = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' });
  const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
  const dates = Array.from({ length: WEEKS * 7 }, (_, at) => new Date(first.getFullYear(), first.getMonth(), first.getDate() + at));
  const rows = Array.from({ length: WEEKS }, (_, week) => dates.slice(week * 7, week * 7 + 7).map((date) => {
    const runs = (days.get(date.toDateString()) ?? []).sort();
    return h('div', { class: date.getTime() === today.getTime() ? 'day today' : 'day' }, h('span', { class: 'dim' }, short.format(date)),
      runs.slice(0, 6).map(([at, experiment]) => h('div', {}, `${clock.format(new Date(at))} `, to(['experiments', experiment], experiment))), runs.length > 6 ? h('div', { class: 'dim' }, `and ${runs.length - 6} more`) : null);
  }));
  return table('Calendar of scheduled runs', dates.slice(0, 7).map((date) => name.format(date)), rows);
}

export async function show(place, context) {
  const parts = { calendar: h('div', { class: 'calendar' }), list: h('div', {}) };
  fill(place, title('Schedules'), h('p', { class: 'dim' }, `Times are shown in ${Intl.DateTimeFormat().resolvedOptions().timeZone}.`), parts.calendar, parts.list);
  await context.refresh(async () => {
    const found = await get('schedules?count=100');
    const key = JSON.stringify(found);
    if (key === parts.key) return;
    parts.key = key;
    fill(parts.calendar, found.length === 0 ? nothing('No experiment has a schedule.') : calendar(found));
    fill(parts.list, found.map((one) => section(one.experiment, upcoming(one, context))));
  });
}
