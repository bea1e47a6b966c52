// How the controller is set up, to be read only, and the preferences of this browser.

import { facts, fill, h, json, section, title } from './dom.js';
import { get } from './api.js';
import { HALT_KEY, isKeyOff, setKeyOff } from './halt.js';

/** Which certificate browsers are shown. */
function certificate(shown) {
  if (!shown) return 'of the controller’s own authority';
  return `for ${shown.names.join(', ')} until ${shown.expires}${shown.stale ? '; its files have changed and cannot be used' : ''}`;
}

export async function show(place, context) {
  const { session } = context;
  const box = h('input', { type: 'checkbox', id: 'halt-key', onchange: () => setKeyOff(!box.checked) });
  box.checked = !isKeyOff();
  const own = section('This browser', context.may('operator') ? h('p', {}, box, h('label', { for: 'halt-key' }, ` Keys act at once, unless something is being typed: ${HALT_KEY.toUpperCase()} halts; D, M, R, W and Q mark a moment of a run or a game day`)) : h('p', {}, 'Nothing to set.'));
  if (session.local || session.blind) {
    fill(place, title('Settings'), facts([['Version', session.version]]), own);
    return;
  }
  const found = await get('settings');
  fill(place, title('Settings'), own,
    section('You', facts([['Token', session.name], ['Person', session.person], ['Role', session.role], ['Teams', session.teams.length > 0 ? session.teams.join(', ') : 'all'], ['Session until', session.expires]])),
    section('Controller', facts([['Version', found.version], ['Lease of agents', found.lease], ['Runs wait for approval', found['approval-expires']], ['Certificate for browsers', certificate(found['tls-certificate'])], ['Identity provider', found['identity-provider'] ?? 'none'], ['Authority', h('code', {}, found.authority)]])),
    section('Policy', found.policy ? json(found.policy) : h('p', { class: 'dim' }, 'It is not shown to tokens that are limited to teams.')),
    h('p', { class: 'dim' }, 'Settings are changed where the controller is started, and by its policy file.'));
}
