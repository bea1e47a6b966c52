// The public API, as this page uses it: by the cookie of its session. And the state of the link to it.

/** How long an answer may take; a halt and a plan may take longer. */
const TIMEOUT = 10_000;
/** How long without an answer until what is shown is called old. */
const OLD = 6_000;
/** How long to wait until a stream is opened again. */
const RETRY = 1_000;

export class Problem extends Error {
  constructor(status, body) {
    super(body.detail ?? `the controller answered with status ${status}`);
    this.status = status;
    this.hint = body.hint;
    this.problems = body.problems;
    this.rule = String(body.type ?? '').split(':').pop();
  }
}

export const link = { heard: performance.now(), lost: false };

function heard() {
  link.heard = performance.now();
  link.lost = false;
}

/** Whether the link is lost, and how old what is shown is, in seconds. */
export function age() {
  const old = performance.now() - link.heard;
  return { lost: link.lost || old > OLD, seconds: old / 1000 };
}

async function call(method, path, body, options = {}) {
  const headers = { 'x-backburn-page': '1', ...options.headers };
  if (body !== undefined) headers['content-type'] = 'application/json';
  let response;
  try {
    response = await fetch(path, {
      method, headers, body: body === undefined ? undefined : JSON.stringify(body), cache: 'no-store', redirect: 'error',
      signal: AbortSignal.timeout(options.timeout ?? TIMEOUT),
    });
  } catch (error) {
    link.lost = true;
    throw new Problem(0, { detail: 'the controller does not answer', hint: 'the page tries again by itself' });
  }
  heard();
  const text = await response.text();
  let answer = null;
  try { answer = text ? JSON.parse(text) : null; } catch { /* A proxy may answer with something else. */ }
  if (response.status === 401) dispatchEvent(new Event('signed-out'));
  if (!response.ok) throw new Problem(response.status, answer ?? {});
  return answer;
}

export const get = (path, options) => call('GET', `/api/v1/${path}`, undefined, options);
export const post = (path, body, options) => call('POST', `/api/v1/${path}`, body ?? {}, options);
export const remove = (path) => call('DELETE', `/api/v1/${path}`);
export const signIn = (token) => call('POST', '/api/v1/session', undefined, { headers: { authorization: `Bearer ${token}` } });

/** A path from parts that are not trusted. */
export const path = (...parts) => parts.map(encodeURIComponent).join('/');

/** All of a list that is given page by page. `key` is what the next page begins after. */
export async function all(room, key, parameter, most = Infinity) {
  const found = [];
  let after = '';
  while (found.length < most) {
    const page = await get(`${room}${room.includes('?') ? '&' : '?'}limit=1000${after}`);
    found.push(...page);
    if (page.length < 1000) break;
    after = `&${parameter}=${encodeURIComponent(key(page[page.length - 1]))}`;
  }
  return found;
}

/**
 * Follows a stream of events of this name, those after the number `after`. A stream that is cut continues after the last event that was received: nothing is lost and nothing comes
 * twice. While the tab is hidden there is no stream, because a browser has only six connections for all tabs, and a halt needs one.
 */
export function follow(room, name, { entry, closed, state = () => {}, after = 0 }) {
  let source = null;
  let last = after;
  let over = false;
  let timer = null;
  let failures = 0;
  const open = () => {
    clearTimeout(timer);
    if (over || source || document.hidden) return;
    source = new EventSource(`/api/v1/${room}?after=${last}`);
    source.addEventListener('open', () => { failures = 0; heard(); state('live'); });
    source.addEventListener(name, (event) => {
      heard();
      const number = Number(event.lastEventId);
      if (number <= last) return;
      last = number;
      entry(JSON.parse(event.data), number);
    });
    source.addEventListener('closed', (event) => { heard(); close(); over = true; state('over'); closed(JSON.parse(event.data)); });
    source.addEventListener('error', () => {
      close();
      state('lost');
      failures += 1;
      timer = setTimeout(open, Math.min(RETRY * failures, 5_000));
    });
  };
  const close = () => { source?.close(); source = null; };
  const seen = () => {
    if (document.hidden) { close(); if (!over) state('hidden'); } else open();
  };
  const again = () => { close(); open(); };
  document.addEventListener('visibilitychange', seen);
  addEventListener('link-back', again);
  open();
  return {
    after: (number) => { last = Math.max(last, number); },
    end: () => {
      over = true; clearTimeout(timer); close();
      document.removeEventListener('visibilitychange', seen);
      removeEventListener('link-back', again);
    },
  };
}
