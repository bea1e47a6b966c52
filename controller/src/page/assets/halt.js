// The halt: its button is always on screen, and one key does the same. There is no second question.

import { announce, button, fill, h, link, preference, problem, seconds, table, when } from './dom.js';
import { get, post, remove } from './api.js';

/** The key, and the preference that switches it off. */
export const HALT_KEY = 'h';
const KEY_OFF = 'halt-key-off';
/** A halt answers when everything was observed to be gone; agents have their own deadlines. */
const HALT_TIMEOUT = 120_000;
/** How often what a halt has reached is looked up while it goes on. */
const PROGRESS_INTERVAL = 300;

const place = () => document.getElementById('halt');
let state = { halted: false, teams: [] };
let session = null;
let report = null;
let ordered = null;
let failure = null;
let progress = null;

export const isKeyOff = () => preference.get(KEY_OFF) === 'yes';
export const setKeyOff = (off) => { preference.set(KEY_OFF, off ? 'yes' : 'no'); render(); };

export function start(of) {
  session = of;
  render();
}

/** Looks whether a halt is in force. This is also how the page knows that its link is there. */
export async function refresh() {
  const found = await get('halt');
  const changed = JSON.stringify(found) !== JSON.stringify(state);
  if (found.halted && !state.halted) announce('A halt is in force');
  state = found;
  if (changed) render();
}

async function halt() {
  if (ordered !== null) return;
  ordered = performance.now();
  report = failure = progress = null;
  announce('Halt ordered');
  render();
  const timer = setInterval(look, PROGRESS_INTERVAL);
  try {
    report = await post('halt', { why: 'ordered on the page' }, { timeout: HALT_TIMEOUT });
    announce(report.clean ? `Halted; everything was seen to be gone after ${seconds(report['took-ms'] / 1000)}` : 'Halted, but not everything was seen to be gone');
  } catch (error) {
    failure = error;
    announce(`The halt was not confirmed: ${error.message}`);
  }
  clearInterval(timer);
  ordered = null;
  await refresh().catch(() => {});
  render();
}

/** What the halt has reached so far. */
async function look() {
  try {
    const open = await get('runs?open=true&limit=1000');
    const left = open.filter((run) => run.state === 'open').length;
    progress = left === 0 ? 'no run is open any more; waiting until all is seen to be gone' : `${left} ${left === 1 ? 'run is' : 'runs are'} still ending`;
  } catch (error) {
    progress = error.message;
  }
  const shown = place().querySelector('.halt-progress');
  if (shown) fill(shown, progress);
}

function last() {
  if (state['last-took-ms'] === undefined) return null;
  const took = seconds(state['last-took-ms'] / 1000);
  return h('span', { class: 'dim last-halt' }, state['last-clean'] ? `last halt: all seen to be gone after ${took}` : `last halt: not everything gone after ${took}`);
}

function outcome() {
  if (ordered !== null) {
    return h('div', { class: 'halt-report', role: 'alert' }, h('strong', {}, 'Halting… '), h('span', { class: 'halt-progress' }, progress ?? 'ordered'));
  }
  if (failure) return h('div', { class: 'halt-report' }, problem(failure), h('p', {}, 'Order it again, or use `backburn halt`.'));
  if (!report) return null;
  const rows = report.agents.map((agent) => [agent.agent,
    agent['took-ms'] === null ? h('strong', {}, agent.unresponsive ? 'does not answer' : 'not confirmed') : seconds(agent['took-ms'] / 1000),
    agent.owed.length === 0 ? 'nothing' : agent.owed.map((owed) => h('div', {}, `${owed.fault}: ${owed.residue.join('; ')}`))]);
  return h('div', { class: `halt-report ${report.clean ? 'good' : 'bad'}`, role: 'alert' },
    h('p', {}, h('strong', {}, report.clean ? '✓ Everything was seen to be gone ' : '! Not everything was seen to be gone '),
      `after ${seconds(report['took-ms'] / 1000)}; `, `${report.runs.length} ${report.runs.length === 1 ? 'run' : 'runs'} ended, ${report.agents.length} agents reached`),
    report.unknown.length > 0 ? h('p', {}, 'Not known to be over: ', report.unknown.map((run) => [link(['runs', run], run), ' '])) : null,
    report.remembered ? null : h('p', {}, 'The halt could not be stored: a restart of the controller ends it.'),
    rows.length > 0 ? h('details', { open: !report.clean }, h('summary', {}, 'Agents, the slowest first'), table('What each agent did', ['Agent', 'Took', 'Still owed'], rows.slice(0, 200))) : null,
    button('Close', () => { report = null; render(); }, { class: 'small' }));
}

export function render() {
  if (!session) return fill(place());
  const mayHalt = session.role !== 'viewer';
  place().className = state.halted ? 'halted' : '';
  const halted = state.halted ? h('div', { class: 'halt-state' },
    h('strong', {}, '■ Halted'), ` by ${state.who}, `, when(state.at), state.why ? `: ${state.why}` : '', ' · no run starts ',
    mayHalt ? button('Resume', async () => { await remove('halt'); report = null; await refresh(); }, { class: 'small' }) : null) : null;
  const teams = (state.teams ?? []).map((of) => h('div', { class: 'halt-state' }, h('strong', {}, `■ Team ${of.team} halted`), ` by ${of.who}, `, when(of.at)));
  const shown = mayHalt ? h('button', { type: 'button', class: 'halt', 'aria-keyshortcuts': isKeyOff() ? null : HALT_KEY, onclick: halt, disabled: ordered !== null },
    session.local ? 'Halt this run' : 'Halt everything', isKeyOff() ? null : h('kbd', { 'aria-hidden': 'true' }, HALT_KEY.toUpperCase())) : null;
  return fill(place(), h('div', { class: 'halt-bar' }, shown, last(), halted, teams), outcome());
}

/** Whether somebody types into something. */
const isTyping = (target) => target instanceof Element && target.closest('input, textarea, select, [contenteditable]') !== null;

/** The key that was pressed alone and is meant for the page; none if it is not. */
export function pressed(event) {
  const isPlain = !event.ctrlKey && !event.metaKey && !event.altKey && !event.repeat && !event.isComposing && !event.defaultPrevented;
  return isPlain && !isTyping(event.target) && !isKeyOff() ? event.key.toLowerCase() : null;
}

addEventListener('keydown', (event) => {
  if (pressed(event) !== HALT_KEY || !session || session.role === 'viewer') return;
  event.preventDefault();
  halt();
});
