// What is known of a run: the fold of its events, as far as the page shows it. Times are seconds since the run started.

import { inSeconds, length } from './dom.js';
import { at, standing } from './series.js';

/** How many lines of the timeline are kept for showing. */
const MAX_LINES = 2_000;
/** How many samples of a probe are kept for its chart at most, and how many stand for them when there are more. */
const [MAX_SAMPLES, STANDING_SAMPLES] = [8_000, 4_000];
/** How many of the last samples of a probe are kept whole, for its table. */
const MAX_RECENT = 50;

const PHASES = { gate: 'hypothesis before', method: 'method', revert: 'reverting', rollbacks: 'rollbacks', after: 'hypothesis after' };
const CAUSES = {
  done: 'its time was over', asked: 'the controller ended it', lease: 'no contact within the lease', link: 'the link closed', rule: 'an abort rule',
  failed: 'a change failed', shutdown: 'the agent was ended', died: 'the agent died', 'by-hand': 'reverted by hand',
};

export const phaseName = (phase) => PHASES[phase] ?? phase;
export const causeName = (cause) => CAUSES[cause] ?? cause;

export class RunModel {
  constructor() {
    this.title = '';
    this.seed = null;
    this.approvedBy = null;
    this.hypothesis = [];
    this.tolerances = {};
    this.phase = null;
    this.phases = [];
    this.agents = new Map();
    this.injections = new Map();
    this.probes = new Map();
    this.aborts = [];
    this.lines = [];
    this.elapsed = 0;
    this.startedAt = null;
    this.over = false;
    this.recovered = null;
    this.recoveryWithin = null;
    this.notStarted = null;
    this.events = 0;
    // The smallest difference of the browser's clock and the run's: the time that it took the quickest event to come.
    this.offset = Infinity;
  }

  /** The run's clock now: an estimate while it goes on. */
  clock(now) {
    if (this.over || !Number.isFinite(this.offset)) return this.elapsed;
    return Math.max(this.elapsed, now / 1000 - this.offset);
  }

  probe(name, isHypothesis) {
    let probe = this.probes.get(name);
    if (!probe) {
      probe = { name, isHypothesis, x: [], value: [], took: [], judgement: [], counts: { within: 0, outside: 0, unknown: 0 }, streak: 0, recent: [], last: null, isNumeric: true, revision: 0 };
      this.probes.set(name, probe);
    }
    return probe;
  }

  /** Takes what a journal comes to so far, in place of its events one by one; `now` is when it came, in milliseconds. */
  open(condensed, now) {
    const leftOut = condensed['changes-left-out'];
    if (leftOut > 0) this.lines.push({ at: '', elapsed: 0, tone: 'dim', text: `${leftOut} earlier changes of probes are not listed here; the journal has all` });
    for (const entry of condensed.events) {
      if (entry.event === 'sampled') this.line(entry, ...judged(entry));
      else this.take(entry, now);
    }
    for (const of of condensed.probes) {
      const probe = this.probe(of.probe, of.hypothesis);
      const { points } = of;
      Object.assign(probe, { x: points.at, value: points.value, took: points['took-ms'], judgement: points.at.map(() => 'within'), isNumeric: of.numeric });
      for (const judgement of ['outside', 'unknown']) points[judgement].forEach((place) => { probe.judgement[place] = judgement; });
      Object.assign(probe.counts, { within: of.within, outside: of.outside, unknown: of.unknown });
      Object.assign(probe, { streak: of['failures-in-a-row'], recent: of.latest.map(sample), revision: 1 });
      probe.last = probe.recent[probe.recent.length - 1];
    }
    this.events = condensed.after;
    this.elapsed = Math.max(this.elapsed, condensed.elapsed);
    this.offset = Math.min(this.offset, now / 1000 - condensed.elapsed);
  }

  /** Takes the next event; `now` is when it came, in milliseconds. */
  take(entry, now) {
    this.events += 1;
    this.elapsed = Math.max(this.elapsed, entry.elapsed);
    this.offset = Math.min(this.offset, now / 1000 - entry.elapsed);
    const act = this[`on_${entry.event.replaceAll('-', '_')}`];
    const text = act?.call(this, entry);
    if (text) this.line(entry, ...text);
  }

  line(entry, tone, text) {
    this.lines.push({ at: entry.at, elapsed: entry.elapsed, tone, text });
    if (this.lines.length > MAX_LINES) this.lines.splice(0, this.lines.length - MAX_LINES);
  }

  on_run_started(e) {
    Object.assign(this, { title: e.title, seed: e.seed, hypothesis: e.hypothesis, approvedBy: e.approved_by ?? null, startedAt: e.at, tolerances: e.tolerances ?? {} });
    this.recoveryWithin = e.recovery_within ?? null;
    return ['', `started with seed ${e.seed}${e.approved_by ? `, approved by ${e.approved_by}` : ''}`];
  }

  on_agent_joined(e) {
    this.agents.set(e.agent, { name: e.agent, lost: null, owed: e.owed });
    return ['', `agent ${e.agent} takes part`];
  }

  on_agent_lost(e) {
    const agent = this.agents.get(e.agent) ?? { name: e.agent, owed: [] };
    this.agents.set(e.agent, { ...agent, lost: e.reason });
    return ['bad', `agent ${e.agent} is lost: ${e.reason}; what it owes is reverted on its host`];
  }

  on_target_picked(e) {
    return ['', `target ${e.target}: ${e.picked.length} of ${e.matched.length} agents: ${e.picked.join(', ')}`];
  }

  on_planned(e) {
    const names = e.plan.victims.map((victim) => victim.name);
    return ['dim', `${e.activity}: would hit ${names.length > 0 ? names.join(', ') : 'the host'} on ${e.agent}`];
  }

  on_phase_started(e) {
    const before = this.phases[this.phases.length - 1];
    if (before) before.until = e.elapsed;
    this.phases.push({ phase: e.phase, from: e.elapsed, until: null });
    this.phase = e.phase;
    return ['phase', phaseName(e.phase)];
  }

  on_not_started(e) {
    this.notStarted = e;
    return ['bad', `not started: ${e.reason} (rule ${e.rule})${e.hint ? `; ${e.hint}` : ''}`];
  }

  on_sampled(e) {
    const probe = this.probe(e.probe, e.hypothesis);
    const value = numeric(e.output);
    if (value === null && e.judgement !== 'unknown' && e.output !== null) probe.isNumeric = false;
    probe.x.push(e.elapsed);
    probe.value.push(value);
    probe.took.push(inSeconds(e.took) * 1000);
    probe.judgement.push(e.judgement);
    probe.counts[e.judgement] += 1;
    probe.streak = e.judgement === 'outside' ? probe.streak + 1 : e.judgement === 'within' ? 0 : probe.streak;
    const before = probe.last?.judgement;
    probe.last = sample(e);
    probe.recent.push(probe.last);
    if (probe.recent.length > MAX_RECENT) probe.recent.shift();
    if (probe.x.length > MAX_SAMPLES) shorten(probe);
    probe.revision += 1;
    // Only what changes is worth a line.
    if (before === e.judgement || (before === undefined && e.judgement === 'within')) return null;
    return judged(e);
  }

  on_activity_started(e) {
    return ['', `${e.activity} began`];
  }

  on_activity_finished(e) {
    const tone = e.status === 'failed' || e.judgement === 'outside' ? 'bad' : '';
    return [tone, `${e.activity} ${e.status}${e.why ? `: ${e.why}` : ''}`];
  }

  on_injection_requested(e) {
    const { injection: id, activity, fault, agent } = e;
    this.injections.set(id, { id, activity, fault, agent, duration: e.duration ? inSeconds(e.duration) : null, oneShot: e.one_shot === true, requested: e.elapsed, from: null, until: null, plan: null, effect: null, refused: null, ended: null });
    return null;
  }

  on_injection_refused(e) {
    const one = this.injections.get(e.injection);
    if (one) one.refused = e.refusal;
    return ['bad', `${one?.fault ?? e.injection} refused on ${one?.agent}: ${e.refusal.what}`];
  }

  on_injected(e) {
    const one = this.injections.get(e.injection);
    if (!one) return null;
    Object.assign(one, { from: e.elapsed, plan: e.plan });
    return ['fault', `${one.fault} acts on ${one.agent}: ${victims(one).join(', ')}`];
  }

  on_effect_seen(e) {
    const one = this.injections.get(e.injection);
    if (!one) return null;
    const before = one.effect?.seen;
    one.effect = e.effect;
    return before === e.effect.seen ? null : [e.effect.acts ? '' : 'warn', `${one.fault} on ${one.agent}: seen: ${e.effect.seen}`];
  }

  on_injection_ended(e) {
    const one = this.injections.get(e.injection);
    if (!one) return null;
    Object.assign(one, { until: e.elapsed, ended: e });
    if (e.effect) one.effect = e.effect;
    return e.clean ? ['good', `${one.fault} on ${one.agent} reverted and seen to be gone in ${length(e.took)} (${causeName(e.cause)})`]
      : ['bad', `${one.fault} on ${one.agent} is not clean: ${(e.residue ?? []).join('; ')}`];
  }

  on_aborted(e) {
    this.aborts.push(e);
    return ['bad', `aborted by ${e.rule}: ${e.reason}`];
  }

  on_recovered(e) {
    this.recovered = { after: e.after };
    return ['good', `the hypothesis holds again after ${length(e.after)}`];
  }

  on_not_recovered(e) {
    this.recovered = { within: e.within };
    return ['bad', `the hypothesis did not hold again within ${length(e.within)}`];
  }

  on_interrupted(e) {
    return ['bad', `interrupted: ${e.reason}`];
  }

  on_run_ended() {
    this.over = true;
    const last = this.phases[this.phases.length - 1];
    if (last) last.until ??= this.elapsed;
    return ['', 'the run is over'];
  }

  /** What is still to be reverted: not ended, or ended and not seen to be gone. */
  owed() {
    const isOwed = (one) => one.refused === null && !(one.oneShot && one.ended) && !(one.ended && one.ended.clean);
    return [...this.injections.values()].filter(isOwed);
  }

  /** The longest time from the decision to end a fault until it was seen to be gone. */
  slowestRevert() {
    const took = [...this.injections.values()].filter((one) => one.ended?.clean && !one.oneShot).map((one) => inSeconds(one.ended.took));
    return took.length > 0 ? Math.max(...took) : null;
  }
}

/** What the tables need of a sample. */
const sample = (e) => ({ elapsed: e.elapsed, at: e.at, judgement: e.judgement, output: e.output, why: e.why, took: e.took });

/** The line of a sample that was judged differently from the one before. */
function judged(e) {
  const tone = { within: 'good', outside: 'bad', unknown: 'warn' }[e.judgement];
  const word = { within: 'is within its tolerance', outside: 'is outside its tolerance', unknown: 'cannot be judged' }[e.judgement];
  return [tone, `${e.probe} ${word}${e.why ? `: ${e.why}` : ''}`];
}

/** Keeps the samples that stand for all, so that a run may last as long as it likes. */
function shorten(probe) {
  const places = standing(probe.x, [probe.value, probe.took], probe.judgement, STANDING_SAMPLES);
  for (const column of ['x', 'value', 'took', 'judgement']) probe[column] = at(probe[column], places);
}

/** The number in an output; null if it is none. */
function numeric(output) {
  if (typeof output === 'number') return output;
  if (typeof output === 'boolean') return output ? 1 : 0;
  if (typeof output === 'string' && output.trim() !== '' && Number.isFinite(Number(output))) return Number(output);
  return null;
}

/** Who is hit by an injection. */
export function victims(injection) {
  const names = (injection.plan?.victims ?? []).map((victim) => victim.name);
  return names.length > 0 ? names : ['the host'];
}

/** The probes of a document by name, with their tolerance. */
export function probesOf(document) {
  const found = new Map();
  const add = (probe) => { if (probe && typeof probe === 'object' && probe.name) found.set(probe.name, probe); };
  (document?.['steady-state-hypothesis']?.probes ?? []).forEach(add);
  (document?.abort ?? []).forEach((rule) => add(rule.probe));
  return found;
}

/** The lower and the upper limit of a numeric tolerance; null if it has none. */
export function band(tolerance) {
  const isPair = (of) => Array.isArray(of) && of.length === 2 && of.every((one) => typeof one === 'number');
  if (isPair(tolerance)) return tolerance;
  if (tolerance && tolerance.type === 'range' && isPair(tolerance.range)) return tolerance.range;
  if (tolerance && tolerance.type === 'compare' && typeof tolerance.value === 'number' && !tolerance.path) {
    if (['<', '<='].includes(tolerance.op)) return [-Infinity, tolerance.value];
    if (['>', '>='].includes(tolerance.op)) return [tolerance.value, Infinity];
  }
  return null;
}

/** The abort rules of a document, with those that a document without any has. */
export function abortRules(document) {
  if (!document) return null;
  if (document.abort) return document.abort;
  const probes = document['steady-state-hypothesis']?.probes ?? [];
  return probes.map((probe) => ({ name: `${probe.name ?? probe.ref} fails`, probe: probe.name ?? probe.ref, failures: 3 }));
}
