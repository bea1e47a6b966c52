// One run: live while it goes on, and the same view of it afterwards.

import { announce, badge, button, facts, fill, h, inSeconds, json, length, link as to, nothing, say, seconds, table, when } from './dom.js';
import { age, follow, get, path, post } from './api.js';
import { ProbeChart } from './charts.js';
import { Notes } from './notes.js';
import { RunModel, abortRules, causeName, phaseName, probesOf, victims } from './run_model.js';

/** How often charts are drawn at most, in milliseconds. */
const DRAW_INTERVAL = 150;
/** How long the journal of a very long run may take to come, in milliseconds. */
const OPEN_TIMEOUT = 60_000;

export async function show(place, context, [id]) {
  let [run, condensed] = await Promise.all([get(path('runs', id)), get(`${path('runs', id)}/condensed`, { timeout: OPEN_TIMEOUT })]);
  let document_ = null;
  if (run.experiment) {
    try {
      document_ = (await get(`${path('experiments', run.experiment)}?version=${run.version}`)).document;
    } catch { /* It may have been removed, or belong to others: there is less to show. */ }
  }
  if (!context.isCurrent()) return;
  const view = new RunView(place, context, run, document_, condensed);
  const { after } = condensed;
  condensed = null;
  const notes = context.session.local ? null : new Notes(view.notes, context, path('runs', id));
  const stream = follow(`${path('runs', id)}/stream`, 'entry', {
    entry: (entry) => view.take(entry),
    closed: (closed) => { run = closed; view.close(closed); },
    state: (state) => view.linked(state), after,
  });
  const clock = setInterval(() => view.tick(), 250);
  const recoloured = () => view.recolour();
  const media = ['(prefers-color-scheme: dark)', '(forced-colors: active)'].map((query) => matchMedia(query));
  media.forEach((one) => one.addEventListener('change', recoloured));
  addEventListener('large', recoloured);
  context.onLeave(() => {
    stream.end();
    clearInterval(clock);
    media.forEach((one) => one.removeEventListener('change', recoloured));
    removeEventListener('large', recoloured);
    view.end();
    notes?.end();
  });
}

class RunView {
  constructor(place, context, run, document_, condensed) {
    this.context = context;
    this.run = run;
    this.document = document_;
    this.model = new RunModel();
    this.model.open(condensed, performance.now());
    this.charts = new Map();
    this.probes = probesOf(document_);
    this.rules = abortRules(document_);
    this.stream = 'opening';
    this.pending = false;
    this.drawn = 0;
    this.lines = 0;
    const part = (name) => h('div', { class: name });
    Object.assign(this, {
      state: part('run-state'), clock: h('span', { class: 'clock', role: 'timer' }), phase: h('span', { class: 'phase' }), fresh: h('span', { class: 'dim' }),
      verdict: part('verdict'), faults: part('faults'), owed: part('owed'), rulesPlace: part('rules'), chartsPlace: part('charts'),
      timeline: h('ol', { class: 'timeline', tabindex: '0', 'aria-label': 'Timeline, the latest first' }), whole: part('whole'), notes: part('notes'),
    });
    const mayStop = context.may('operator');
    this.stop = mayStop && run.state !== 'over' ? button('Stop this run', async () => { await post(`${path('runs', run.id)}/stop`, { why: 'on the page' }); }, {}) : null;
    fill(place,
      h('div', { class: 'title' }, h('h1', {}, run.title), this.state),
      h('div', { class: 'run-head' }, this.clock, this.phase, this.fresh, this.stop),
      this.verdict,
      h('div', { class: 'columns' },
        h('section', {}, h('h2', {}, 'Faults'), this.faults),
        h('section', {}, h('h2', {}, 'Still to be reverted'), this.owed),
        h('section', {}, h('h2', {}, 'What ends this run'), this.rulesPlace)),
      h('section', {}, h('h2', {}, 'Probes'), h('p', { class: 'dim legend' }, h('span', { class: 'swatch fault' }), ' a fault acts ', h('span', { class: 'swatch band' }), ' tolerance ', h('span', { class: 'swatch bad' }), ' outside ', h('span', { class: 'swatch warn' }), ' unknown'), this.chartsPlace),
      context.session.local ? null : h('section', {}, h('h2', {}, 'Notes and marks'), this.notes),
      h('section', {}, h('h2', {}, 'Timeline'), this.timeline),
      h('section', {}, h('h2', {}, 'About'), this.whole));
    this.about();
    this.render();
  }

  take(entry) {
    const before = this.model.phase;
    this.model.take(entry, performance.now());
    if (this.stream === 'live' && entry.event === 'phase-started' && before !== this.model.phase) announce(`Phase: ${phaseName(entry.phase)}`);
    if (entry.event === 'aborted') announce(`Aborted by ${entry.rule}`);
    this.schedule();
  }

  linked(state) {
    this.stream = state;
    this.schedule();
  }

  close(run) {
    this.run = run;
    this.model.over = true;
    this.stop?.remove();
    announce(`The run is over: ${run.outcome}`);
    this.about();
    this.schedule();
  }

  /** The run's clock: an estimate only while events can come. */
  now() {
    const isLive = this.stream === 'live' && !age().lost;
    return isLive ? this.model.clock(performance.now()) : this.model.elapsed;
  }

  /** Draws with the next frame, and not more often than the interval allows. */
  schedule() {
    if (this.pending) return;
    this.pending = true;
    const wait = Math.max(0, DRAW_INTERVAL - (performance.now() - this.drawn));
    setTimeout(() => requestAnimationFrame(() => { this.pending = false; this.render(); }), wait);
  }

  tick() {
    this.tellClock();
    this.tellFaults();
    if (!this.model.over) this.drawCharts();
  }

  render() {
    this.drawn = performance.now();
    this.tellState();
    this.tellClock();
    this.tellFaults();
    this.tellOwed();
    this.tellRules();
    this.drawCharts();
    this.tellTimeline();
    // For who measures how soon events are shown. Only the last is kept.
    performance.clearMarks('rendered');
    performance.mark('rendered', { detail: this.model.events });
  }

  tellState() {
    const state = this.run.state === 'over' ? this.run.outcome : this.run.state;
    if (this.shownState === state) return;
    this.shownState = state;
    fill(this.state, badge(state));
    const verdict = this.run.verdict;
    if (!verdict) {
      fill(this.verdict, this.run.state === 'waiting-for-approval' ? h('p', {}, 'This run waits for an approval. ', to(['approvals', this.run.id], 'See what would be hit')) : null);
      return;
    }
    fill(this.verdict,
      (verdict.reasons ?? []).map((reason) => h('p', {}, reason)),
      verdict.hint ? h('p', { class: 'dim' }, `Hint: ${verdict.hint}`) : null,
      (verdict.notes ?? []).map((note) => h('p', { class: 'dim' }, note)),
      facts([
        ['Out of tolerance', (verdict.outages ?? []).map(([probe, outage]) => h('div', {}, `${probe}: ${seconds(outage.until - outage.from)}${outage.over ? '' : ', not over'}`))],
        ['Held again', verdict.recovered_after ? `${length(verdict.recovered_after)} after the last revert` : null],
        ['Checked', (verdict.probes ?? []).map((one) => h('div', {}, `${one.probe}: ${one.failures} of ${one.looks} failed; failure rates above ${((one['upper-bound'] ?? one.upper_bound) * 100).toPrecision(2)} % are ruled out`))],
        ['Slowest revert', this.model.slowestRevert() === null ? null : seconds(this.model.slowestRevert())],
        ['Cleaned later', this.run.cleaned ? when(this.run.cleaned) : null],
      ]));
  }

  tellClock() {
    const { model } = this;
    say(this.clock, seconds(Math.round(this.now() * 10) / 10));
    say(this.phase, model.over ? 'over' : model.phase ? phaseName(model.phase) : this.run.state === 'open' ? 'preparing' : '');
    const link = age();
    const text = { opening: 'connecting…', live: `live · ${model.events} events`, lost: `✗ not live: the stream is cut; last event at ${seconds(model.elapsed)}`, hidden: 'paused while hidden', over: `${model.events} events` }[this.stream];
    say(this.fresh, link.lost && this.stream !== 'over' ? `✗ not live: nothing heard for ${seconds(Math.round(link.seconds))}` : text);
    this.fresh.className = this.stream === 'lost' || (link.lost && this.stream !== 'over') ? 'bad' : 'dim';
  }

  tellFaults() {
    const { model } = this;
    const now = this.now();
    this.bars ??= new Map();
    if (model.injections.size === 0) {
      if (!this.faults.firstChild) fill(this.faults, nothing('None so far.'));
      return;
    }
    if (this.bars.size === 0) fill(this.faults);
    for (const one of [...model.injections.values()].slice(0, 300)) {
      let bar = this.bars.get(one.id);
      if (!bar) {
        bar = { meter: h('progress', { max: '1', value: '0', 'aria-label': `${one.fault} on ${one.agent}` }), text: h('span', {}), whom: h('p', { class: 'dim' }) };
        bar.element = h('div', { class: 'fault' }, h('div', {}, h('strong', {}, one.activity), ` · ${one.fault} on `, one.agent), bar.meter, bar.text, bar.whom);
        this.bars.set(one.id, bar);
        this.faults.append(bar.element);
      }
      const acts = one.from !== null && one.until === null && !one.ended;
      bar.element.className = `fault ${one.refused || (one.ended && !one.ended.clean) ? 'bad' : acts ? 'acts' : 'done'}`;
      const left = one.duration === null || one.from === null ? null : one.from + one.duration - now;
      const done = one.ended || one.refused ? 1 : left === null ? 0 : Math.min(1, 1 - left / one.duration);
      if (Math.abs(bar.meter.value - done) > 0.002) bar.meter.value = done;
      bar.meter.hidden = one.oneShot;
      say(bar.text, one.refused ? `refused: ${one.refused.what}`
        : one.ended ? (one.ended.clean ? `seen to be gone in ${length(one.ended.took)}: ${causeName(one.ended.cause)}` : `not clean: ${(one.ended.residue ?? []).join('; ')}`)
          : one.from === null ? 'requested' : one.oneShot ? 'done once' : left === null ? 'acts' : left > 0 ? `${this.stream === 'live' && !age().lost ? 'acts' : `acted at ${seconds(now)}`} · ${seconds(left)} left` : 'its time is over; reverting');
      say(bar.whom, `hits ${victims(one).slice(0, 8).join(', ')}${victims(one).length > 8 ? ` and ${victims(one).length - 8} more` : ''}${one.effect ? ` · seen: ${one.effect.seen}` : ''}`);
      bar.whom.hidden = one.plan === null;
    }
  }

  tellOwed() {
    const owed = this.model.owed();
    const key = owed.map((one) => `${one.id}${one.ended ? '!' : ''}${one.from}`).join();
    if (key === this.owedKey) return;
    this.owedKey = key;
    const agents = Map.groupBy ? Map.groupBy(owed, (one) => one.agent) : owed.reduce((map, one) => map.set(one.agent, [...(map.get(one.agent) ?? []), one]), new Map());
    const slowest = this.model.slowestRevert();
    fill(this.owed, agents.size === 0
      ? h('p', { class: 'good' }, this.model.injections.size > 0 ? '✓ Nothing: all was seen to be gone' : 'Nothing', slowest === null ? '' : ` (slowest revert ${seconds(slowest)})`)
      : h('ul', {}, [...agents].map(([agent, of]) => h('li', {}, h('strong', {}, agent), h('ul', {}, of.map((one) => h('li', {}, `${one.fault}: `, one.ended ? h('span', { class: 'bad' }, `ended, and not seen to be gone: ${(one.ended.residue ?? []).join('; ')}`) : this.model.agents.get(one.agent)?.lost ? h('span', { class: 'warn' }, 'the agent is lost: it reverts by itself, and nobody has seen it') : one.from === null ? 'requested' : 'acts')))))));
  }

  tellRules() {
    const { model } = this;
    if (this.rules === null) {
      if (!this.rulesPlace.firstChild) fill(this.rulesPlace, nothing('The document of this run is not stored, so its abort rules are not shown.'));
      return;
    }
    const limit = this.document['blast-radius']?.duration;
    const first = Math.min(...[...model.injections.values()].map((one) => one.from ?? Infinity));
    const rows = this.rules.map((rule) => {
      const broken = model.aborts.find((abort) => abort.rule === rule.name);
      const most = rule.failures ?? 1;
      if (rule.host) {
        const bound = rule.host.above !== undefined ? `above ${rule.host.above}` : `below ${rule.host.below}`;
        return [rule.name, `${rule.host.metric} ${bound}`, broken ? h('span', { class: 'bad' }, '✗ triggered') : `watched by each agent, ${most} in a row`];
      }
      const name = typeof rule.probe === 'string' ? rule.probe : rule.probe?.name;
      const failed = Math.min(model.probes.get(name)?.streak ?? 0, most);
      return [rule.name, `${name} fails`, broken ? h('span', { class: 'bad' }, '✗ triggered') : h('span', { class: failed > 0 ? 'bad' : '' }, `${failed} of ${most} in a row`)];
    });
    if (limit) {
      const left = Number.isFinite(first) && !model.over ? inSeconds(limit) - (this.now() - first) : null;
      rows.push(['blast radius', `longer than ${length(limit)}`, left === null ? 'not begun' : `${seconds(Math.max(0, left))} left`]);
    }
    model.aborts.filter((abort) => !this.rules.some((rule) => rule.name === abort.rule)).forEach((abort) => rows.push([abort.rule, abort.reason, h('span', { class: 'bad' }, '✗ ended the run')]));
    const key = rows.map((row) => row.map((cell) => (cell instanceof Node ? cell.textContent : cell)).join()).join('\n');
    if (key === this.rulesKey) return;
    this.rulesKey = key;
    fill(this.rulesPlace, rows.length === 0 ? nothing('No rule.') : table('Abort rules', ['Rule', 'Ends the run when', 'So far'], rows));
  }

  drawCharts(force) {
    const { model } = this;
    for (const probe of model.probes.values()) {
      if (!this.charts.has(probe.name)) {
        const chart = new ProbeChart(probe, model, this.probes.get(probe.name)?.tolerance ?? model.tolerances[probe.name]);
        this.charts.set(probe.name, chart);
        if (this.charts.size === 1) fill(this.chartsPlace);
        this.chartsPlace.append(chart.element);
      }
    }
    if (this.charts.size === 0 && !this.chartsPlace.firstChild) fill(this.chartsPlace, nothing('Nothing was measured so far.'));
    const span = { min: 0, max: Math.max(this.now(), 1) };
    this.charts.forEach((chart) => chart.draw(span, force));
  }

  tellTimeline() {
    const lines = this.model.lines;
    if (lines.length === this.lines && this.last === lines[lines.length - 1]) return;
    const known = this.last ? lines.lastIndexOf(this.last) : -1;
    const fresh = known < 0 ? lines.slice(-500) : lines.slice(known + 1);
    if (known < 0) fill(this.timeline);
    for (const line of fresh) {
      this.timeline.prepend(h('li', { class: line.tone }, h('span', { class: 'at', title: line.at }, seconds(line.elapsed)), ' ', line.text));
    }
    while (this.timeline.childElementCount > 500) this.timeline.lastElementChild.remove();
    this.lines = lines.length;
    this.last = lines[lines.length - 1];
  }

  about() {
    const { run, context } = this;
    const mayRun = context.may('operator') && run.experiment && run.state === 'over' && !context.session.local;
    fill(this.whole, facts([
      ['Run', h('code', {}, run.id)],
      ['Experiment', run.experiment && !context.session.local ? [to(['experiments', run.experiment], run.experiment), ` version ${run.version}`] : context.session.local ? null : 'given with the run, not stored'],
      ['Seed', String(run.seed)], ['Requested by', `${run.who}${run.because === 'schedule' ? ' (schedule)' : ''}`],
      ['Report', run.state === 'over' && !context.session.local && !context.session.blind ? h('a', { href: `/api/v1/${path('runs', run.id)}/report?format=html`, target: '_blank', rel: 'noopener' }, 'The report of this run') : null],
      ['Started', when(run.started)], ['Ended', run.ended ? when(run.ended) : null],
    ]), mayRun ? button('Run it again with the same seed', async () => {
      const begun = await post(`${path('experiments', run.experiment)}/runs`, { version: run.version, seed: run.seed });
      location.hash = begun.run ? `#/${path('runs', begun.run)}` : `#/${path('approvals', begun.approval.id)}`;
    }) : null, this.document ? h('details', {}, h('summary', {}, 'Document'), json(this.document)) : null);
  }

  recolour() {
    this.charts.forEach((chart) => chart.recolour());
    this.drawCharts(true);
  }

  end() {
    this.charts.forEach((chart) => chart.end());
  }
}
