// What people add to a run or a game day while it goes on: notes, marks, decisions, updates. Its journal stays as it is.

import { announce, button, fill, h, nothing, problem, when } from './dom.js';
import { follow, post } from './api.js';
import { pressed } from './halt.js';

/** The marks, with their keys. */
const MARKS = [['d', 'detected'], ['m', 'mitigated'], ['r', 'recovered'], ['w', 'wrong-runbook'], ['q', 'question']];
/** How many entries are shown; the API has all. */
const MAX_SHOWN = 500;

/** What an entry says. */
function words(entry, byNumber) {
  const { body, kind } = entry;
  switch (kind) {
    case 'note': return [body.text, body.facilitators ? h('span', { class: 'dim' }, ' (facilitators only)') : null];
    case 'mark': return [h('strong', {}, `⚑ ${body.mark}`), body.text ? `: ${body.text}` : ''];
    case 'correction': return [h('span', { class: 'dim' }, `corrects the time of no. ${body.of}${byNumber.has(body.of) ? '' : ' (not shown)'} to `), when(body.happened), body.why ? `: ${body.why}` : ''];
    case 'decision': return [h('strong', {}, 'Decision: '), body.text, body.by ? ` (by ${body.by})` : '', body.why ? h('span', { class: 'dim' }, ` because ${body.why}`) : ''];
    case 'link': return [`${body.title}: `, h('code', {}, body.url)];
    case 'duty': return [h('strong', {}, `${body.duty}: `), body.from ? `${body.from} hands over to ${body.to}` : `${body.to} takes over`, body.why ? `: ${body.why}` : ''];
    case 'update': return [h('strong', {}, `Status update, ${body.audience}: `), body.text ?? [body.impact, body.workaround ? `; workaround: ${body.workaround}` : ''], body.next ? [h('span', { class: 'dim' }, ' next at '), when(body.next)] : null];
    case 'prerequisite': return [`prerequisite ${body.number} is ${body.met ? 'met' : 'not met'}`];
    case 'prompt': return [h('strong', {}, `Prompt ${body.name}: `), body.text ?? '', body.to ? h('span', { class: 'dim' }, ` (for ${body.to})`) : ''];
    case 'state': return [h('strong', {}, body.state), body.step ? ` step ${body.step}` : '', body.why ? `: ${body.why}` : ''];
    case 'reminder': return [h('span', { class: 'warn' }, 'The next status update is due '), when(body.due)];
    case 'reveal': return [body.step ? `step ${body.step} is revealed` : 'everything is revealed'];
    case 'cleaned': return [h('span', { class: 'good' }, '✓ nothing is left of this run any more')];
    default: return [`${kind}: ${JSON.stringify(body)}`];
  }
}

export class Notes {
  /** Shows and takes the notes of `room`, such as `runs/ID`. `duties` adds what only game days have. */
  constructor(place, context, room, { changed, isGameDay = false } = {}) {
    Object.assign(this, { context, room, changed, isGameDay });
    this.entries = [];
    this.byNumber = new Map();
    this.list = h('ol', { class: 'timeline', tabindex: '0', 'aria-label': 'Notes, the latest first' });
    this.failure = h('div', {});
    this.mayWrite = context.may('operator');
    fill(place, this.mayWrite ? this.forms() : null, this.failure, this.list);
    this.keys = (event) => {
      const mark = MARKS.find(([key]) => key === pressed(event));
      if (!mark || !this.mayWrite) return;
      event.preventDefault();
      this.add({ kind: 'mark', mark: mark[1] });
    };
    addEventListener('keydown', this.keys);
    this.stream = follow(`${room}/notes/stream`, 'note', { entry: (entry) => this.take(entry), closed: () => {} });
    this.draw();
  }

  async add(note) {
    fill(this.failure);
    try {
      await post(`${this.room}/notes`, note);
      announce(`${note.mark ?? note.kind} was recorded`);
      return true;
    } catch (error) {
      fill(this.failure, problem(error));
      return false;
    }
  }

  forms() {
    const text = h('input', { type: 'text', id: 'note', maxlength: '4000', autocomplete: 'off' });
    const kind = h('select', { id: 'note-kind' }, ['note', 'decision', ...(this.isGameDay ? ['note for facilitators'] : [])].map((name) => h('option', { value: name }, name)));
    const form = h('form', { class: 'actions' }, h('label', { for: 'note' }, 'Add'), kind, text, h('button', { type: 'submit' }, 'Add'));
    kind.setAttribute('aria-label', 'Kind of note');
    form.addEventListener('submit', async (event) => {
      event.preventDefault();
      if (!text.value.trim()) return;
      const note = kind.value === 'note for facilitators' ? { kind: 'note', text: text.value, facilitators: true } : { kind: kind.value, text: text.value };
      if (await this.add(note)) text.value = '';
    });
    const marks = h('div', { class: 'actions', role: 'group', 'aria-label': 'Marks' }, MARKS.map(([key, mark]) => button([mark, h('kbd', { 'aria-hidden': 'true' }, key.toUpperCase())], () => this.add({ kind: 'mark', mark }), { class: 'small', 'aria-keyshortcuts': key })));
    return [marks, form, this.updateForm()];
  }

  /** A status update, internal and outward side by side. */
  updateForm() {
    const form = (audience) => {
      const field = (name, label) => { const id = `${name}-${audience}`; return [h('label', { for: id }, label), h('input', { type: 'text', id, maxlength: '2000', autocomplete: 'off' })]; };
      const [impact, workaround] = [field('impact', 'Impact'), field('workaround', 'Known workaround')];
      const minutes = [h('label', { for: `next-${audience}` }, 'Next update in minutes'), h('input', { type: 'number', id: `next-${audience}`, min: '1', max: '1440' })];
      const element = h('form', { class: 'update' }, h('h3', {}, audience), impact, workaround, minutes, h('button', { type: 'submit' }, 'Send'));
      element.addEventListener('submit', async (event) => {
        event.preventDefault();
        const note = { kind: 'update', audience, impact: impact[1].value };
        if (workaround[1].value) note.workaround = workaround[1].value;
        if (minutes[1].value) note.next = new Date(Date.now() + Number(minutes[1].value) * 60_000).toISOString();
        if (await this.add(note)) element.reset();
      });
      return element;
    };
    return h('details', {}, h('summary', {}, 'Status update'), h('div', { class: 'columns' }, form('internal'), form('outward')));
  }

  take(entry) {
    if (this.byNumber.has(entry.number)) return;
    this.byNumber.set(entry.number, entry);
    this.entries.push(entry);
    const corrected = entry.kind === 'correction' ? this.byNumber.get(entry.body.of) : null;
    if (corrected) Object.assign(corrected, { happened: entry.body.happened, 'corrected-by': entry.number });
    this.changed?.(entry);
    if (!this.pending) {
      this.pending = true;
      requestAnimationFrame(() => { this.pending = false; this.draw(); });
    }
  }

  draw() {
    if (this.entries.length === 0) {
      fill(this.list, h('li', {}, nothing('None so far.')));
      return;
    }
    // A form for a time that is being corrected stays as it is.
    if (this.list.contains(document.activeElement) && document.activeElement.tagName === 'INPUT') return;
    const shown = this.entries.slice(-MAX_SHOWN).sort((a, b) => new Date(b.happened) - new Date(a.happened) || b.number - a.number);
    const rest = this.entries.length - shown.length;
    fill(this.list, shown.map((entry) => h('li', { class: entry.kind === 'mark' ? 'mark' : '' },
      h('span', { class: 'at' }, when(entry.happened)), ' ', h('span', { class: 'dim' }, `${entry.number} · ${entry.who} `), words(entry, this.byNumber),
      entry['corrected-by'] ? h('span', { class: 'dim' }, ' (written ', when(entry.at), `, corrected by no. ${entry['corrected-by']})`) : null,
      this.mayWrite && ['note', 'mark', 'decision'].includes(entry.kind) ? this.corrector(entry) : null)),
    rest > 0 ? h('li', {}, nothing(`${rest} earlier ones are not listed here; the report has all`)) : null);
  }

  /** A button that asks for the time at which something really happened. */
  corrector(entry) {
    return button('Correct the time', (element) => {
      const field = h('input', { type: 'text', value: entry.happened, 'aria-label': 'When it really happened', size: '26' });
      const save = h('button', { type: 'submit', class: 'small' }, 'Save');
      const form = h('form', { class: 'actions' }, field, save);
      form.addEventListener('submit', async (event) => {
        event.preventDefault();
        field.blur();
        if (await this.add({ kind: 'correction', of: entry.number, happened: field.value.trim() })) form.remove();
      });
      element.after(form);
      field.focus();
    }, { class: 'small' });
  }

  end() {
    removeEventListener('keydown', this.keys);
    this.stream.end();
  }
}

