// Charts of probes: value or answer time over the time of the run, the tolerance as a band, faults as shaded spans.

import { clean, h, length, say, seconds, table, fill } from './dom.js';
import { band } from './run_model.js';
import { at, standing } from './series.js';

/* global uPlot */

/** How many points are drawn at most; of more samples, those are drawn that stand for all. */
const MAX_POINTS = 2_000;
const HEIGHT = 120;

/** The colours of the page, which differ by light, dark and forced colours. */
function colours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  return { text: of('dim'), grid: of('line'), line: of('accent'), bad: of('bad'), warn: of('warn'), fault: of('fault-fill'), band: of('band-fill') };
}

const font = () => `${Math.round(parseFloat(getComputedStyle(document.documentElement).fontSize) * 0.75)}px system-ui`;

export class ProbeChart {
  constructor(probe, model, tolerance) {
    this.probe = probe;
    this.model = model;
    this.tolerance = tolerance;
    this.drawn = -1;
    this.visible = true;
    this.plot = null;
    this.state = h('span', { class: 'probe-state' });
    this.sentence = h('p', { class: 'dim sentence' });
    this.canvas = h('div', { class: 'plot', 'aria-hidden': 'true' });
    this.rows = h('div', {});
    this.details = h('details', { ontoggle: () => this.showTable() }, h('summary', {}, 'Samples as a table'), this.rows);
    this.element = h('article', { class: 'probe' },
      h('h3', {}, h('span', {}, probe.name), this.state), this.canvas, this.sentence, this.details);
    this.observer = new IntersectionObserver(([seen]) => { this.visible = seen.isIntersecting; });
    this.observer.observe(this.element);
    this.sized = new ResizeObserver(() => this.resize());
    this.sized.observe(this.canvas);
  }

  /** Draws what is new. `span` is the time axis of all charts. */
  draw(span, force) {
    const { probe } = this;
    const { last, counts } = probe;
    if (!last) return;
    const word = { within: '✓ within', outside: '✗ outside', unknown: '? unknown' }[last.judgement];
    say(this.state, word);
    this.state.className = `probe-state ${{ within: 'good', outside: 'bad', unknown: 'warn' }[last.judgement]}`;
    if (!this.visible && !force) return;
    const isNumeric = probe.isNumeric && probe.value.some((value) => value !== null);
    const ys = isNumeric ? probe.value : probe.took;
    const limits = isNumeric ? band(this.tolerance) : null;
    const total = counts.within + counts.outside + counts.unknown;
    const what = isNumeric ? `the value is ${clean(short(last.output))}` : `it answered in ${seconds(probe.took[probe.took.length - 1] / 1000)}`;
    const places = standing(probe.x, [ys], probe.judgement, MAX_POINTS);
    const [xs, shown, judgements] = [probe.x, ys, probe.judgement].map((list) => at(list, places));
    const stand = shown.length < total ? `, drawn as ${shown.length} of them: the first, the last, the extremes and the first failures of each piece of time` : '';
    say(this.sentence, `${total} samples${stand}: ${counts.within} within, ${counts.outside} outside, ${counts.unknown} unknown; at ${seconds(last.elapsed)} ${what}${last.why ? ` (${last.why})` : ''}${this.tolerance === undefined ? '' : `. Tolerance: ${limits ? limits.map((one) => (Number.isFinite(one) ? one : '∞')).join(' to ') : clean(short(this.tolerance))}`}.`);
    const failed = (judgement) => shown.map((y, place) => (judgements[place] === judgement ? y ?? 0 : null));
    const [bad, unknown] = ['outside', 'unknown'].map(failed);
    const data = [xs, shown, bad, unknown];
    if (!this.plot || this.isNumeric !== isNumeric) this.create(data, isNumeric, limits, span);
    this.span = span;
    this.limits = limits;
    this.plot.batch(() => {
      if (this.drawn !== probe.revision) this.plot.setData(data, false);
      const values = shown.filter((y) => y !== null);
      const finite = (limits ?? []).filter(Number.isFinite);
      const low = Math.min(0, ...finite, values.reduce((a, b) => Math.min(a, b), Infinity));
      const high = Math.max(...finite, values.reduce((a, b) => Math.max(a, b), 0), isNumeric ? 1 : 10);
      this.plot.setScale('y', { min: low, max: high * 1.1 });
      this.plot.setScale('x', span);
    });
    this.drawn = probe.revision;
    if (this.details.open && performance.now() - (this.tabled ?? 0) > 1000) this.showTable();
  }

  create(data, isNumeric, limits, span) {
    this.plot?.destroy();
    this.isNumeric = isNumeric;
    const of = colours();
    const axis = { stroke: of.text, grid: { stroke: of.grid, width: 1 }, ticks: { show: false }, font: font(), size: 64 };
    const dots = (colour) => ({ stroke: colour, paths: () => null, points: { show: true, size: 6, stroke: colour, fill: colour } });
    this.plot = new uPlot({
      width: this.width(), height: HEIGHT, legend: { show: false },
      cursor: { sync: { key: 'run' }, drag: { x: false, y: false }, points: { show: false } },
      scales: { x: { time: false, auto: false, min: span.min, max: span.max }, y: { auto: false, min: 0, max: 1 } },
      axes: [{ ...axis, size: 24, space: parseInt(axis.font, 10) * 6, values: (_, ticks) => ticks.map((tick) => `${Math.round(tick * 10) / 10} s`) },
        { ...axis, values: (_, ticks) => ticks.map((tick) => (isNumeric ? brief(tick) : `${brief(tick)} ms`)) }],
      series: [{}, { stroke: of.line, width: 1.5, points: { show: false } }, dots(of.bad), dots(of.warn)],
      hooks: { drawClear: [(plot) => this.shade(plot, of)] },
    }, data, this.canvas);
  }

  /** The tolerance and the faults, behind the line. */
  shade(plot, of) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    for (const one of this.model.injections.values()) {
      if (one.from === null) continue;
      const left = plot.valToPos(one.from, 'x', true);
      const right = plot.valToPos(one.until ?? this.span?.max ?? one.from, 'x', true);
      ctx.fillStyle = of.fault;
      ctx.fillRect(left, bbox.top, Math.max(right - left, 2), bbox.height);
    }
    if (this.limits) {
      const [low, high] = this.limits;
      const bottom = Number.isFinite(low) ? plot.valToPos(low, 'y', true) : bbox.top + bbox.height;
      const top = Number.isFinite(high) ? plot.valToPos(high, 'y', true) : bbox.top;
      ctx.fillStyle = of.band;
      ctx.fillRect(bbox.left, top, bbox.width, Math.max(bottom - top, 2));
    }
    ctx.restore();
  }

  width() {
    return Math.max(this.canvas.clientWidth, 200);
  }

  resize() {
    if (this.plot && this.plot.width !== this.width()) this.plot.setSize({ width: this.width(), height: HEIGHT });
  }

  /** Takes the colours anew. */
  recolour() {
    this.isNumeric = undefined;
    this.drawn = -1;
  }

  showTable() {
    if (!this.details.open) return;
    this.tabled = performance.now();
    const rows = this.probe.recent.slice(-20).reverse().map((one) => [seconds(one.elapsed), one.judgement, short(one.output), length(one.took), one.why ?? '']);
    fill(this.rows, table(`Last samples of ${this.probe.name}`, ['At', 'Judgement', 'Output', 'Took', 'Why'], rows));
  }

  end() {
    this.observer.disconnect();
    this.sized.disconnect();
    this.plot?.destroy();
  }
}

function brief(number) {
  const size = Math.abs(number);
  if (size >= 1e6) return `${+(number / 1e6).toFixed(1)}M`;
  if (size >= 1e4) return `${+(number / 1e3).toFixed(1)}k`;
  return String(+number.toFixed(2));
}

/** A value in a few characters. */
export function short(value, most = 120) {
  const text = typeof value === 'string' ? value : JSON.stringify(value ?? null);
  return text.length > most ? `${text.slice(0, most)}…` : text;
}

/** Outage and recovery of runs, one beside the other. */
export function trend(place, runs) {
  const of = colours();
  const outage = runs.map((run) => run.outage);
  const recovery = runs.map((run) => run.recovery);
  const axis = { stroke: of.text, grid: { stroke: of.grid, width: 1 }, ticks: { show: false }, font: font() };
  return new uPlot({
    width: Math.max(place.clientWidth, 260), height: 160, cursor: { drag: { x: false, y: false } }, legend: { show: true, live: false },
    scales: { x: { time: false, range: (_, min, max) => [min - 0.5, max + 0.5] }, y: { range: (_, min, max) => [0, Math.max(max, 1) * 1.1] } },
    axes: [{ ...axis, incrs: [1, 2, 5, 10, 50, 100], values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? String(tick) : '')) }, { ...axis, values: (_, ticks) => ticks.map((tick) => `${tick} s`) }],
    series: [{}, { label: 'outage', stroke: of.bad, fill: of.bad, paths: uPlot.paths.bars({ size: [0.5, 40] }), points: { show: false } },
      { label: 'recovery', stroke: of.line, width: 0, paths: () => null, points: { show: true, size: 8, fill: of.line } }],
  }, [runs.map((_, at) => at + 1), outage, recovery], place);
}

