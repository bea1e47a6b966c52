//! What a probe measured over time, and the same with few points: the lowest and the highest value of each column.

use super::model::{PlotColumn, ProbePlot};
use backburn_experiments::journal::Judgement;
use serde_json::Value;
use serde_json::value::RawValue;

/// The part of a probe's output that its tolerance judges, and the values that are in tolerance.
#[derive(Debug, Clone, Default)]
pub(super) struct ToleranceBand {
    target: Option<String>,
    pointer: Option<String>,
    low: Option<f64>,
    high: Option<f64>,
    is_figure: bool,
}

impl ToleranceBand {
    /// The band of a tolerance, as a document writes it. One that is not about a number has no limits.
    pub(super) fn of(tolerance: &Value) -> Self {
        let mut band = ToleranceBand::default();
        let limits = match tolerance {
            Value::Array(_) => tolerance,
            _ => &tolerance["range"],
        };
        if let [low, high] = limits.as_array().map(Vec::as_slice).unwrap_or_default() {
            (band.low, band.high) = (low.as_f64(), high.as_f64());
            band.is_figure = band.low.is_some() && band.high.is_some();
        }
        band.target = tolerance["target"].as_str().map(str::to_owned);
        if tolerance["type"] == "compare" {
            let limit = number(&tolerance["value"]);
            band.is_figure = limit.is_some();
            match tolerance["op"].as_str() {
                Some("<" | "<=") => band.high = limit,
                Some(">" | ">=") => band.low = limit,
                Some("==") => (band.low, band.high) = (limit, limit),
                _ => {}
            }
            let path = tolerance["path"].as_str();
            band.pointer = path.and_then(|path| {
                let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
                let below = path.strip_prefix("$.")?;
                let is_simple = below.chars().all(is_plain);
                is_simple.then(|| format!("/{}", below.replace('.', "/")))
            });
        }
        band
    }

    /// The number that is judged in this output.
    fn figure(&self, output: Option<&RawValue>) -> Option<f64> {
        let text = output?.get();
        match text.as_bytes().first()? {
            b'-' | b'0'..=b'9' => text.parse().ok(),
            b'"' => number(&serde_json::from_str(text).ok()?),
            b'{' if self.target.is_some() || self.pointer.is_some() => {
                let value: Value = serde_json::from_str(text).ok()?;
                match (&self.target, &self.pointer) {
                    (Some(target), _) => number(value.get(target)?),
                    (None, Some(pointer)) => number(value.pointer(pointer)?),
                    (None, None) => None,
                }
            }
            _ => None,
        }
    }
}

fn number(value: &Value) -> Option<f64> {
    let found = match value {
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_f64(),
    };
    found.filter(|number: &f64| number.is_finite())
}

/// A single sample of a probe.
#[derive(Debug, Clone, Copy)]
struct SamplePoint {
    at: f32,
    figure: Option<f32>,
    milliseconds: f32,
    judgement: Judgement,
}

/// All samples of a probe.
#[derive(Debug, Clone, Default)]
pub(super) struct ProbeSeries {
    pub(super) is_hypothesis: bool,
    pub(super) band: ToleranceBand,
    pub(super) last: Option<Judgement>,
    /// How often the judgement changed.
    pub(super) changes: usize,
    points: Vec<SamplePoint>,
}

impl ProbeSeries {
    pub(super) fn push(&mut self, sample: &crate::journal_line::SampleLine<'_>) {
        let milliseconds = sample.took.0.as_secs_f64() * 1e3;
        self.points.push(SamplePoint {
            at: sample.elapsed as f32,
            figure: self.band.figure(sample.output).map(|figure| figure as f32),
            milliseconds: milliseconds as f32,
            judgement: sample.judgement,
        });
    }

    /// The samples in at most `columns` columns over a run of this length in seconds.
    pub(super) fn plot(&self, probe: &str, seconds: f64, columns: usize) -> ProbePlot {
        let numbers = self.points.iter().filter(|point| point.figure.is_some());
        let numbers = numbers.count();
        // The result of a check that only succeeds or fails does not change; how long it took does.
        let is_value = numbers * 2 > self.points.len() && (self.band.is_figure || self.varies());
        let value = |point: &SamplePoint| match is_value {
            true => point.figure,
            false => Some(point.milliseconds),
        };
        let width = (seconds / columns as f64).max(f64::MIN_POSITIVE);
        let mut plotted: Vec<PlotColumn> = Vec::new();
        let mut last = usize::MAX;
        for point in &self.points {
            let column = ((f64::from(point.at) / width) as usize).min(columns - 1);
            let value = value(point).map(f64::from).map(rounded);
            let outside = u32::from(point.judgement == Judgement::Outside);
            match plotted.last_mut().filter(|_| column == last) {
                Some(PlotColumn(_, low, high, failed)) => {
                    *low = lesser(*low, value);
                    *high = lesser(high.map(|high| -high), value.map(|value| -value))
                        .map(|value| -value);
                    *failed += outside;
                }
                None => {
                    let at = (f64::from(point.at) * 10.0).round() / 10.0;
                    plotted.push(PlotColumn(at, value, value, outside));
                }
            }
            last = column;
        }
        let mut values: Vec<f32> = self.points.iter().filter_map(value).collect();
        values.sort_by(f32::total_cmp);
        let at = |index: usize| {
            values
                .get(index)
                .copied()
                .map(f64::from)
                .map_or(0.0, rounded)
        };
        let count = |judgement| {
            let points = self.points.iter();
            points.filter(|point| point.judgement == judgement).count()
        };
        let limit = |limit: Option<f64>| limit.filter(|_| is_value && self.band.is_figure);
        ProbePlot {
            probe: probe.to_owned(),
            hypothesis: self.is_hypothesis,
            figure: if is_value { "value" } else { "milliseconds" },
            low: limit(self.band.low),
            high: limit(self.band.high),
            samples: self.points.len(),
            outside: count(Judgement::Outside),
            unknown: count(Judgement::Unknown),
            range: (!values.is_empty())
                .then(|| (at(0), at(values.len() / 2), at(values.len() - 1))),
            columns: plotted,
        }
    }

    fn varies(&self) -> bool {
        let mut figures = self.points.iter().filter_map(|point| point.figure);
        let first = figures.next();
        figures.any(|figure| Some(figure) != first)
    }
}

fn lesser(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// The number with four significant digits: more cannot be seen in a plot.
pub(super) fn rounded(number: f64) -> f64 {
    if number == 0.0 || !number.is_finite() {
        return number;
    }
    // What has more digits before the point keeps them.
    let digits = (3.0 - number.abs().log10().floor()).clamp(0.0, 12.0);
    let scale = 10_f64.powi(digits as i32);
    (number * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal_line::JournalLine;
    use serde_json::json;

    fn series(tolerance: &Value, samples: &[(f64, Value, &str)]) -> ProbeSeries {
        let mut series = ProbeSeries {
            band: ToleranceBand::of(tolerance),
            ..ProbeSeries::default()
        };
        for (elapsed, output, judgement) in samples {
            let line = json!({"at": "2026-11-01T10:00:00Z", "elapsed": elapsed, "event": "sampled",
                "phase": "method", "probe": "p", "hypothesis": true, "judgement": judgement,
                "output": output, "took": "5ms"})
            .to_string();
            match JournalLine::read(&line) {
                Ok(JournalLine::Sample(sample)) => series.push(&sample),
                _ => panic!("{line}"),
            }
        }
        series
    }

    #[test]
    fn plot_many_samples_keeps_the_lowest_and_highest_of_each_column() {
        let samples: Vec<(f64, Value, &str)> = (0..1000)
            .map(|index| {
                let spike = index == 777;
                let value = if spike { 900.0 } else { f64::from(index % 7) };
                let judgement = if spike { "outside" } else { "within" };
                (f64::from(index) / 10.0, json!(value), judgement)
            })
            .collect();
        let tolerance = json!({"type": "range", "range": [0.0, 10.0]});
        let plot = series(&tolerance, &samples).plot("p", 100.0, 20);
        assert_eq!(plot.columns.len(), 20);
        assert_eq!((plot.samples, plot.outside), (1000, 1));
        assert_eq!((plot.low, plot.high), (Some(0.0), Some(10.0)));
        assert_eq!(plot.range, Some((0.0, 3.0, 900.0)));
        let PlotColumn(_, low, high, failed) = plot.columns[15];
        assert_eq!((low, high, failed), (Some(0.0), Some(900.0), 1));
        assert!(plot.columns.iter().filter(|column| column.3 > 0).count() == 1);
    }

    #[test]
    fn plot_figure_is_what_the_tolerance_judges_or_how_long_the_check_took() {
        let status = json!({"status": 200, "body": {"p99": "12.5"}});
        let cases = [
            (json!([200, 204]), status.clone(), "milliseconds", None),
            (
                json!({"type": "range", "range": [1, 500], "target": "status"}),
                status.clone(),
                "value",
                Some(200.0),
            ),
            (
                json!({"type": "compare", "op": "<=", "value": 20, "path": "$.body.p99"}),
                status,
                "value",
                Some(12.5),
            ),
            (json!(0), json!(0), "milliseconds", None),
            (json!([0, 5]), json!("3"), "value", Some(3.0)),
        ];
        for (tolerance, output, figure, value) in cases {
            let plot = series(&tolerance, &[(1.0, output, "within")]).plot("p", 2.0, 60);
            assert_eq!(plot.figure, figure, "{tolerance}");
            if value.is_some() {
                assert_eq!(plot.range.map(|range| range.1), value, "{tolerance}");
            }
        }
    }

    #[test]
    fn rounded_number_keeps_four_significant_digits() {
        for (number, expected) in [
            (0.0, 0.0),
            (0.000_123_456, 0.000_123_5),
            (12.345_6, 12.35),
            (-9_999.9, -10_000.0),
            (1_234_567.0, 1_234_567.0),
        ] {
            assert!((rounded(number) - expected).abs() < 1e-12, "{number}");
        }
    }
}
