// The shell: who is signed in, which view is shown, how old what is shown is.

import { announce, button, fill, h, preference, problem, say, seconds } from './dom.js';
import { age, get, remove } from './api.js';
import { begin, signInForm } from './sign_in.js';
import * as halt from './halt.js';
import * as actions from './actions.js';
import * as approvals from './approvals.js';
import * as audit from './audit.js';
import * as experiments from './experiments.js';
import * as fleet from './fleet.js';
import * as gameDays from './game_days.js';
import * as overview from './overview.js';
import * as run from './run.js';
import * as runs from './runs.js';
import * as schedules from './schedules.js';
import * as settings from './settings.js';

/** How often it is checked that the controller answers, and whether a halt is in force. */
const HEARTBEAT = 2_000;
/** How often views are read again. */
const REFRESH = 3_000;
/** How much longer than reading it takes nothing is read again: a large fleet is not read all the time. */
const REST = 20;

/** The views: name, heading, the least role, and whether the page of a local run has it. */
const VIEWS = [
  ['', 'Overview', 'viewer', false, overview.show],
  ['runs', 'Runs', 'viewer', true, (...of) => (of[2].length > 0 ? run.show(...of) : runs.show(...of))],
  ['game-days', 'Game days', 'viewer', false, gameDays.show],
  ['experiments', 'Experiments', 'viewer', false, experiments.show],
  ['schedules', 'Schedules', 'viewer', false, schedules.show],
  ['approvals', 'Approvals', 'viewer', false, approvals.show],
  ['actions', 'Actions', 'viewer', false, actions.show],
  ['fleet', 'Fleet', 'viewer', false, fleet.show],
  ['audit', 'Audit', 'admin', false, audit.show],
  ['settings', 'Settings', 'viewer', true, settings.show],
];
const ROLES = ['viewer', 'operator', 'admin'];

const main = document.getElementById('main');
const top = document.getElementById('top');
let session = null;
let leave = null;
let timers = [];
let shown = 0;
let wasLost = false;
const freshness = h('span', { class: 'freshness', role: 'status' });

const may = (role) => ROLES.indexOf(session.role) >= ROLES.indexOf(role);
/** What a participant sees who may not know what a game day does; the server keeps the rest closed. */
const BLIND = ['runs', 'game-days', 'settings'];
const views = () => VIEWS.filter(([name, , role, isLocal]) => may(role) && (isLocal || !session.local) && (!session.blind || BLIND.includes(name)));

function header() {
  const room = parts()[0] ?? '';
  const items = views().map(([name, text]) => h('li', {}, h('a', { href: `#/${name}`, 'aria-current': name === room ? 'page' : null }, text)));
  fill(top, h('a', { class: 'brand', href: '#/' }, 'Backburn'),
    h('nav', { 'aria-label': 'Views' }, h('ul', {}, items)),
    h('div', { class: 'who' }, freshness,
      button('Large', toggleLarge, { class: 'small', 'aria-pressed': String(document.documentElement.classList.contains('large')), title: 'For a projector' }),
      session.local ? null : h('span', {}, `${session.name} (${session.role})`),
      session.local ? null : button('Sign out', signOut, { class: 'small' })));
}

function toggleLarge(element) {
  const large = document.documentElement.classList.toggle('large');
  preference.set('large', large ? 'yes' : 'no');
  element.setAttribute('aria-pressed', String(large));
  dispatchEvent(new Event('large'));
}

async function signOut() {
  await remove('session');
  preference.set('signed-in', 'no');
  location.replace('/');
}

/** The parts of the address after its `#/`. */
function parts() {
  const [path] = location.hash.replace(/^#\/?/, '').split('?');
  return path.split('/').filter((part) => part !== '').map((part) => { try { return decodeURIComponent(part); } catch { return part; } });
}

async function route() {
  const number = shown += 1;
  leave?.();
  leave = null;
  timers.forEach(clearInterval);
  timers = [];
  const [room = '', ...rest] = parts();
  const view = views().find(([name]) => name === room);
  header();
  const place = h('div', {});
  const isCurrent = () => number === shown;
  const context = {
    session, may, isCurrent,
    /** Reads and shows something, now and again every few seconds, or more seldom if it takes long. It is not read while the tab is hidden. */
    async refresh(act, every = REFRESH) {
      let [busy, rest] = [false, 0];
      const timed = async () => {
        const began = performance.now();
        await act();
        const now = performance.now();
        rest = now + (now - began) * REST;
      };
      const once = async () => {
        if (busy || document.hidden || !isCurrent() || performance.now() < rest) return;
        busy = true;
        try { await timed(); } catch (error) { if (error.status !== 0) throw error; } finally { busy = false; }
      };
      timers.push(setInterval(() => once().catch((error) => fill(place, problem(error))), every));
      await timed();
    },
    onLeave(act) { leave = act; },
  };
  fill(main, place);
  if (!view) {
    fill(place, h('h1', {}, 'Not found'), h('p', {}, 'There is no such view, or your role does not have it.'));
    return;
  }
  document.title = `${view[1]} · Backburn`;
  try {
    await view[4](place, context, rest);
  } catch (error) {
    if (isCurrent()) fill(place, h('h1', {}, view[1]), problem(error));
  }
  if (isCurrent()) {
    const heading = place.querySelector('h1');
    if (heading) document.title = `${heading.textContent} · Backburn`;
  }
}

async function beat() {
  try {
    await halt.refresh();
  } catch { /* The age of what is shown says so. */ }
}

function tell() {
  const { lost, seconds: old } = age();
  if (lost !== wasLost) {
    announce(lost ? session?.local ? 'The program has ended' : 'The link to the controller is lost' : 'The link to the controller is back');
    if (!lost) dispatchEvent(new Event('link-back'));
    wasLost = lost;
  }
  document.documentElement.classList.toggle('lost', lost);
  freshness.className = lost ? 'freshness bad' : 'freshness';
  const gone = session?.local ? '✗ The program has ended' : null;
  say(freshness, lost ? gone ?? `✗ Link lost · what is shown is ${seconds(Math.round(old))} old` : '● Link up');
  freshness.title = `last answer ${seconds(old)} ago`;
}

function enter(of) {
  session = of;
  halt.start(session);
  beat();
  setInterval(beat, HEARTBEAT);
  setInterval(tell, 500);
  tell();
  addEventListener('hashchange', () => { route(); main.focus({ preventScroll: true }); scrollTo(0, 0); });
  addEventListener('signed-out', () => { if (session) { session = null; location.replace('/'); } });
  if (session.blind && location.hash.length < 3) location.hash = '#/game-days';
  if (session.local && location.hash.length < 3) get('runs').then((found) => { location.hash = found[0] ? `#/runs/${encodeURIComponent(found[0].id)}` : '#/runs'; });
  route();
}

if (preference.get('large') === 'yes') document.documentElement.classList.add('large');
try {
  const found = await begin();
  if (found) enter(found);
  else signInForm(main, enter);
} catch (error) {
  signInForm(main, enter, error);
}
