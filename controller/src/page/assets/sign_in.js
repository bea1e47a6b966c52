// Signing in: with a token, or with the owner's identity provider. The token is exchanged for a cookie that no script can read, and
// forgotten.

import { button, fill, h, preference, problem } from './dom.js';
import { Problem, get, post, signIn } from './api.js';

/** The state of a log-in that is under way in this tab. It is not secret: it only tells that the answer belongs to it. */
const STATE = 'backburn-login-state';
/** Whether this browser has signed in: whether it is worth asking. */
const SIGNED_IN = 'signed-in';

async function exchange(token) {
  const session = await signIn(token);
  preference.set(SIGNED_IN, 'yes');
  return session;
}

/** The session, if there is one: by the cookie, by the printed address of a local run, or by the answer of an identity provider. */
export async function begin() {
  const printed = location.hash.match(/^#token=([\w.-]+)$/);
  if (printed) {
    history.replaceState(null, '', '/');
    await exchange(printed[1]);
  }
  const query = new URLSearchParams(location.search);
  if (query.has('state') && (query.has('code') || query.has('error'))) await finishLogin(query);
  if (preference.get(SIGNED_IN) !== 'yes') return null;
  try {
    return await get('session');
  } catch (error) {
    if (error.status === 401) { preference.set(SIGNED_IN, 'no'); return null; }
    throw error;
  }
}

async function finishLogin(query) {
  history.replaceState(null, '', '/');
  const expected = sessionStorage.getItem(STATE);
  sessionStorage.removeItem(STATE);
  if (query.get('state') !== expected) throw new Problem(0, { detail: 'this log-in was not begun in this tab', hint: 'sign in again' });
  if (query.has('error')) throw new Problem(0, { detail: `the identity provider refuses the log-in: ${query.get('error')}` });
  const info = await post('login/code', { state: expected, code: query.get('code') }, { timeout: 30_000 });
  await exchange(info.token);
}

async function startLogin() {
  const begun = await post('login/page', { 'redirect-uri': `${location.origin}/` }, { timeout: 30_000 });
  sessionStorage.setItem(STATE, begun.state);
  location.assign(begun.url);
}

/** Asks for a token. `done` is called with the session. */
export function signInForm(main, done, failure) {
  const field = h('input', { type: 'password', id: 'token', autocomplete: 'off', spellcheck: 'false', required: true, 'aria-describedby': 'token-help' });
  const wrong = h('div', {});
  const form = h('form', {},
    h('label', { for: 'token' }, 'Token'), field,
    h('p', { class: 'dim', id: 'token-help' }, 'An admin makes one with `backburn tokens make NAME`; the first is in the file `admin-token` of the controller’s data. It is exchanged for a cookie and kept nowhere.'),
    h('button', { type: 'submit', class: 'primary' }, 'Sign in'), wrong);
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const token = field.value.trim();
    field.value = '';
    fill(wrong);
    try {
      done(await exchange(token));
    } catch (error) {
      fill(wrong, problem(error));
      field.focus();
    }
  });
  fill(main, h('div', { class: 'sign-in' }, h('h1', {}, 'Backburn'), failure ? problem(failure) : null, form,
    h('hr', {}), button('Sign in with the identity provider', startLogin),
    h('details', {}, h('summary', {}, 'Does the browser warn of the certificate?'),
      h('p', {}, 'The controller has a certificate authority of its own. Its owner can give it a certificate that browsers trust (`backburn controller --tls-certificate FILE --tls-key FILE`), or put it behind a reverse proxy that has one; else add the file `authority/authority.crt` of its data to the authorities that this browser trusts. See docs/page.md. Do not click the warning away: a token is typed here.'))));
  field.focus();
}
