// Game days: what is prepared and held, and one of them as it goes on.

import { button, facts, fill, h, length, link as to, nothing, say, seconds, section, table, title, when } from './dom.js';
import { get, path, post } from './api.js';
import { Notes } from './notes.js';

const REFRESH = 2_000;

export async function show(place, context, [id]) {
  if (id !== undefined) return gameDay(place, context, id);
  const parts = { held: h('div', {}), stored: h('div', {}) };
  fill(place, title('Game days'), section('Held and prepared', parts.held), context.session.blind ? null : section('Stored', parts.stored));
  await context.refresh(async () => {
    const held = await get('game-days');
    fill(parts.held, held.length === 0 ? nothing('None yet.') : table('Game days', ['Game day', 'State', 'Mode', 'Prepared', 'Ended', 'By'], held.map((one) => [to(['game-days', one.id], one.title), one.paused ? 'paused' : one.state, one.mode, when(one.prepared), when(one.ended), one.who])));
    if (context.session.blind) return;
    const stored = await get('game-day-documents');
    const key = JSON.stringify(stored);
    if (key === parts.key) return;
    parts.key = key;
    fill(parts.stored, stored.length === 0 ? nothing('None is stored. `backburn apply FILE` stores one.') : table('Stored game days', ['Name', 'Title', 'Version', 'Next', ''], stored.map((one) => [one.name, (one.document['game-day'] ?? one.document).title ?? '', String(one.version), when(one.next),
      context.may('operator') ? h('div', { class: 'actions' }, ['live', 'tabletop'].map((mode) => button(`Prepare ${mode}`, async () => {
        const prepared = await post('game-days', { name: one.name, mode });
        location.hash = `#/${path('game-days', prepared.id)}`;
      }, { class: 'small' }))) : ''])));
  });
}

async function gameDay(place, context, id) {
  const room = path('game-days', id);
  let day = await get(room);
  const parts = { head: h('div', { class: 'run-head' }), clock: h('span', { class: 'clock', role: 'timer' }), due: h('p', {}), facts: h('div', {}), steps: h('div', {}), ready: h('div', {}), duties: h('div', {}), notes: h('div', {}), about: h('div', {}) };
  fill(place, title(day.title), h('p', {}, day.purpose), parts.head, parts.due,
    h('div', { class: 'columns' }, section('Duties', parts.duties), section('Before it begins', parts.ready)),
    section('Steps', parts.steps), section('Notes and marks', parts.notes), section('About', parts.about));
  const read = async () => { day = await get(room); if (context.isCurrent()) draw(); };
  const act = (text, what, body, attributes) => button(text, async () => { await post(`${room}/${what}`, body ?? {}, { timeout: 60_000 }); await read(); }, attributes);
  const tick = () => {
    const since = day.since ? (Date.now() - new Date(day.since)) / 1000 : null;
    say(parts.clock, day.paused ? 'paused' : since === null ? '' : seconds(Math.max(0, Math.round(since))));
    const left = day['update-due'] ? (new Date(day['update-due']) - Date.now()) / 1000 : null;
    const discussion = day['discussion-ends'] && !day.paused ? (new Date(day['discussion-ends']) - Date.now()) / 1000 : null;
    say(parts.due, [left === null ? null : left > 0 ? `The next status update is due in ${seconds(Math.round(left))}.` : `! The next status update is overdue by ${seconds(Math.round(-left))}.`,
      discussion !== null && discussion > 0 ? `The discussion ends in ${seconds(Math.round(discussion))}.` : null].filter(Boolean).join(' '));
    parts.due.className = left !== null && left <= 0 ? 'bad' : '';
  };
  const draw = () => {
    const key = JSON.stringify(day);
    if (key === parts.key) return;
    parts.key = key;
    const mayAct = context.may('operator') && !context.session.blind && day.state !== 'ended';
    const last = day.step >= day.steps.length && day.state === 'discussion';
    fill(parts.head, h('span', { class: 'phase' }, day.paused ? 'paused' : day.state), parts.clock, h('span', { class: 'dim' }, `${day.mode}, step ${day.step} of ${day.steps.length}`),
      mayAct ? [act(day.state === 'prepared' ? 'Begin' : last ? 'End it' : 'Next', 'next', {}, { class: 'primary' }), day.paused ? act('Resume the day', 'resume') : day.state === 'prepared' ? null : act('Pause', 'pause')] : null,
      context.may('operator') && day.state !== 'ended' ? act('Stop the day', 'stop', { why: 'on the page' }) : null,
      mayAct && day.steps.some((step) => !step.revealed) ? act('Reveal everything', 'reveal') : null);
    fill(parts.steps, table('Steps', ['No.', 'Step', 'Experiment', 'Run', 'Participants', 'Prompts'], day.steps.map((step) => [
      step.number === day.step ? h('strong', {}, `▶ ${step.number}`) : String(step.number), step.title ?? h('span', { class: 'dim' }, step.revealed ? '–' : 'not revealed'),
      step.experiment ? (context.session.blind ? step.experiment : to(['experiments', step.experiment], step.experiment)) : '–', step.run ? to(['runs', step.run], step.run) : '–', step.revealed ? 'know it' : 'do not know it yet',
      step.prompts.map((prompt) => h('div', { class: prompt.given ? '' : 'dim' }, `${prompt.given ? '✓' : '○'} ${prompt.name}: ${prompt.text} (after ${length(prompt.after)}${prompt.to ? `, for ${prompt.to}` : ''})`))])));
    fill(parts.ready, day.prerequisites.length === 0 ? nothing('Nothing has to be so.') : h('ul', { class: 'plain' }, day.prerequisites.map((one) => {
      const box = h('input', { type: 'checkbox', id: `ready-${one.number}`, disabled: !mayAct, onchange: () => notes.add({ kind: 'prerequisite', number: one.number, met: box.checked }) });
      box.checked = one.met;
      return h('li', {}, box, h('label', { for: `ready-${one.number}` }, ` ${one.text}`));
    })));
    fill(parts.duties, facts(Object.entries(day.duties).map(([duty, holders]) => [duty, [holders.join(', ') || h('span', { class: 'warn' }, 'nobody'), mayAct ? handOver(duty, holders) : null]])));
    const text = day.document ?? {};
    fill(parts.about, facts([['Id', h('code', {}, day.id)], ['Prepared', [when(day.prepared), ` by ${day.who}`]], ['Began', day.begun ? when(day.begun) : null], ['Ended', day.ended ? when(day.ended) : null], ['Why', day.why],
      ['Report', day.state === 'ended' && !context.session.blind ? h('a', { href: `/api/v1/${room}/report?format=html`, target: '_blank', rel: 'noopener' }, 'The report of this game day') : null],
      ['Objectives', text.objectives ? Object.entries(text.objectives).map(([name, value]) => h('div', {}, `${name}: ${typeof value === 'object' ? JSON.stringify(value) : value}`)) : null],
      ['Runbooks', (text.runbooks ?? []).map((one) => h('div', {}, `${one.title ?? ''} `, h('code', {}, one.url ?? '')))], ['Stop when', (text['stop-criteria'] ?? []).map((one) => h('div', {}, one))], ['Audience', (text.audience ?? []).join(', ')]]));
    tick();
  };
  const handOver = (duty, holders) => {
    const field = h('input', { type: 'text', size: '12', 'aria-label': `Who takes over ${duty}` });
    const form = h('form', { class: 'actions' }, field, h('button', { type: 'submit', class: 'small' }, 'Hand over'));
    form.addEventListener('submit', async (event) => {
      event.preventDefault();
      field.blur();
      const note = { kind: 'duty', duty, to: field.value.trim() };
      if (holders.length > 0) note.from = holders[0];
      if (await notes.add(note)) { parts.key = null; await read(); }
    });
    return form;
  };
  const isTyping = () => parts.duties.contains(document.activeElement) && document.activeElement.value;
  const notes = new Notes(parts.notes, context, room, { isGameDay: true, changed: () => { if (!isTyping()) read().catch(() => {}); } });
  const clock = setInterval(tick, 500);
  context.onLeave(() => { notes.end(); clearInterval(clock); });
  draw();
  await context.refresh(async () => { if (!isTyping()) await read(); }, REFRESH);
}
