// Elements, text and times. Text from elsewhere becomes text nodes only, never markup.

// What could hide or reorder text is shown as its code: control characters, direction marks and characters without width.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

/** Text that can be shown as it is. */
export function clean(text) {
  return String(text).replace(UNSEEN, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

/** An element with attributes, listeners (`onclick: f`) and children: elements, texts, lists of these, or nothing. */
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') element.addEventListener(name.slice(2), value);
    else if (name === 'value') element.value = value;
    else if (name === 'href' && !/^(#|\/api\/v1\/)/.test(value)) continue;
    else element.setAttribute(name, value === true ? '' : clean(value));
  }
  add(element, children);
  return element;
}

export function add(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(clean(child)));
  }
}

/** Replaces what an element holds. */
export function fill(element, ...children) {
  element.replaceChildren();
  add(element, children);
  return element;
}

/** Sets an element's text if it differs, so that a screen reader does not hear it again. */
export function say(element, text) {
  const shown = clean(text);
  if (element.textContent !== shown) element.textContent = shown;
}

/** Tells a screen reader something that happened. */
export function announce(text) {
  say(document.getElementById('said'), text);
}

export const link = (to, ...children) => h('a', { href: `#/${to.map(encodeURIComponent).join('/')}` }, ...children);

export const title = (text, ...rest) => h('div', { class: 'title' }, h('h1', {}, text), rest);

export const section = (name, ...children) => h('section', {}, h('h2', {}, name), children);

export const nothing = (text) => h('p', { class: 'dim' }, text);

/** A table; columns are names, rows are lists of cells. It scrolls by itself on a narrow screen. */
export function table(caption, columns, rows) {
  const head = h('tr', {}, columns.map((name) => h('th', { scope: 'col' }, name)));
  const body = rows.map((cells) => h('tr', {}, cells.map((cell) => h('td', {}, cell))));
  return h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption },
    h('table', {}, h('caption', { class: 'unseen' }, caption), h('thead', {}, head), h('tbody', {}, body)));
}

/** A list of names and values. */
export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== '' && !(Array.isArray(value) && value.length === 0));
  return h('dl', { class: 'facts' }, shown.map(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]));
}

const time = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
const day = new Intl.DateTimeFormat(undefined, { year: 'numeric', month: 'short', day: '2-digit' });

/** A time in the reader's time zone; the exact one is in its title. */
export function when(at) {
  if (!at) return '–';
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return clean(at);
  const isToday = new Date().toDateString() === date.toDateString();
  const text = isToday ? time.format(date) : `${day.format(date)} ${time.format(date)}`;
  return h('time', { datetime: at, title: at }, text);
}

/** A length in seconds, for people. */
export function seconds(length) {
  if (length === null || length === undefined || !Number.isFinite(length)) return '–';
  if (length < 0) return `−${seconds(-length)}`;
  if (length < 0.9995) return `${Math.round(length * 1000)} ms`;
  if (length < 60) return `${length.toFixed(1)} s`;
  const whole = Math.round(length);
  const parts = [[Math.floor(whole / 3600), 'h'], [Math.floor((whole % 3600) / 60), 'min'], [whole % 60, 's']];
  return parts.filter(([n]) => n > 0).map(([n, unit]) => `${n} ${unit}`).join(' ');
}

const UNITS = { ns: 1e-9, us: 1e-6, 'µs': 1e-6, ms: 1e-3, s: 1, m: 60, h: 3600, d: 86400 };

/** The seconds of a length as it is written in documents and journals, such as `1m30s`. */
export function inSeconds(text) {
  if (typeof text === 'number') return text;
  let sum = 0;
  for (const [, number, unit] of String(text ?? '').matchAll(/([\d.]+)\s*(ns|us|µs|ms|s|m|h|d)/g)) {
    sum += Number(number) * UNITS[unit];
  }
  return sum;
}

/** A length as it is written in documents and journals, for people. */
export const length = (text) => (text === null || text === undefined ? '–' : seconds(inSeconds(text)));

const OUTCOMES = {
  held: ['✓', 'good'], deviated: ['✗', 'bad'], 'not-clean': ['!', 'bad'], aborted: ['■', 'warn'],
  inconclusive: ['?', 'warn'], 'not-started': ['–', 'dim'], 'not-injected': ['○', 'warn'],
  open: ['●', 'live'], 'waiting-for-approval': ['…', 'warn'],
};

/** An outcome or a state, with a sign, so that it does not depend on its colour. */
export function badge(outcome) {
  const [sign, tone] = OUTCOMES[outcome] ?? ['·', 'dim'];
  return h('span', { class: `badge ${tone}` }, h('span', { 'aria-hidden': 'true' }, `${sign} `), outcome ?? 'unknown');
}

/** Something that failed, with what would help. */
export function problem(error) {
  return h('div', { class: 'problem', role: 'alert' }, h('p', {}, error.message),
    error.hint ? h('p', { class: 'dim' }, `Hint: ${error.hint}`) : null,
    (error.problems ?? []).map((one) => h('p', {}, h('code', {}, one.at), ` ${one.what}`)));
}

/** A button that does something once at a time, and shows what went wrong. */
export function button(text, act, attributes) {
  const element = h('button', { type: 'button', ...attributes }, text);
  element.addEventListener('click', async () => {
    if (element.disabled) return;
    element.disabled = true;
    element.parentElement?.querySelector(':scope > .problem')?.remove();
    try {
      await act(element);
    } catch (error) {
      element.after(problem(error));
    } finally {
      element.disabled = false;
    }
  });
  return element;
}

export const json = (value) => h('pre', { tabindex: '0' }, JSON.stringify(value, null, 2));

/** A preference of this browser; nothing secret. */
export const preference = {
  get: (name) => { try { return localStorage.getItem(name); } catch { return null; } },
  set: (name, value) => { try { localStorage.setItem(name, value); } catch { /* It lasts as long as the page. */ } },
};
