//! A probe's plot as SVG: the lowest and highest value of each column, the values in tolerance as a band, the time that faults
//! acted as spans, and marks where checks were out of tolerance.

use super::escape::text;
use super::model::{FaultHit, PlotColumn, ProbePlot};
use super::series::rounded;
use super::summary::length;
use std::fmt::Write;

/// The size of a plot, and of the room for its labels, in pixels.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 130.0;
const LEFT: f64 = 54.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 22.0;

/// What a plot shows, in a sentence.
pub(super) fn sentence(plot: &ProbePlot) -> String {
    let what = match plot.figure {
        "value" => "values",
        _ => "checks took",
    };
    let unit = match plot.figure {
        "value" => "",
        _ => " ms",
    };
    let range = plot.range.map(|(low, median, high)| {
        format!("; {what} {low} to {high}{unit}, median {median}{unit}")
    });
    let band = match (plot.low, plot.high) {
        (Some(low), Some(high)) => format!("; in tolerance from {low} to {high}"),
        (Some(low), None) => format!("; in tolerance from {low}"),
        (None, Some(high)) => format!("; in tolerance up to {high}"),
        (None, None) => String::new(),
    };
    let unknown = match plot.unknown {
        0 => String::new(),
        count => format!(", {count} could not be judged"),
    };
    format!(
        "{} checks, {} out of tolerance{unknown}{}{band}",
        plot.samples,
        plot.outside,
        range.unwrap_or_default()
    )
}

/// The scale of a plot.
struct Scale {
    seconds: f64,
    low: f64,
    high: f64,
}

impl Scale {
    fn x(&self, seconds: f64) -> f64 {
        let share = (seconds / self.seconds).clamp(0.0, 1.0);
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }
}

/// The lowest and highest value of the axis. Limits of the tolerance are included unless they are so far away that nothing of
/// the values could be seen.
fn axis(plot: &ProbePlot) -> (f64, f64) {
    let (mut low, _, mut high) = plot.range.unwrap_or((0.0, 0.0, 1.0));
    let reach = (high - low).max(high.abs()).max(low.abs()).max(1e-9);
    for limit in [plot.low, plot.high].into_iter().flatten() {
        if (limit - high).abs() <= 3.0 * reach || (limit - low).abs() <= 3.0 * reach {
            low = low.min(limit);
            high = high.max(limit);
        }
    }
    if low > 0.0 && low < 0.5 * high {
        low = 0.0;
    }
    match high > low {
        true => (low, high + (high - low) * 0.05),
        false => (low - 0.5, low + 0.5),
    }
}

/// Writes the plot as an SVG element.
pub(super) fn svg(out: &mut String, plot: &ProbePlot, hits: &[FaultHit], seconds: f64) {
    let (low, high) = axis(plot);
    let scale = Scale {
        seconds: seconds.max(1e-3),
        low,
        high,
    };
    let (label, floor) = (text(&sentence(plot)), HEIGHT - BOTTOM);
    // Writing to a string cannot fail.
    write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">"
    )
    .ok();
    for hit in hits {
        let Some(from) = hit.from else { continue };
        let (x, until) = (scale.x(from), scale.x(hit.until.unwrap_or(seconds)));
        write!(
            out,
            "<rect class=\"span\" x=\"{x:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.0}\"><title>{}</title></rect>",
            (until - x).max(1.0),
            floor - TOP,
            text(&format!("{} on {}", hit.fault, hit.agent))
        )
        .ok();
    }
    if plot.low.is_some() || plot.high.is_some() {
        let top = scale.y(plot.high.unwrap_or(high));
        let base = scale.y(plot.low.unwrap_or(low));
        let width = WIDTH - LEFT - RIGHT;
        write!(
            out,
            "<rect class=\"band\" x=\"{LEFT}\" y=\"{top:.1}\" width=\"{width}\" height=\"{:.1}\"/>",
            (base - top).max(1.0)
        )
        .ok();
        for limit in [plot.low, plot.high].into_iter().flatten() {
            if (low..=high).contains(&limit) {
                let y = scale.y(limit);
                write!(out, "<path class=\"limit\" d=\"M{LEFT} {y:.1}h{width}\"/>").ok();
            }
        }
    }
    lines(out, plot, &scale);
    for (value, y) in [(high, TOP + 9.0), (low, floor)] {
        let shown = rounded(value);
        write!(
            out,
            "<text x=\"{:.0}\" y=\"{y:.0}\" text-anchor=\"end\">{shown}</text>",
            LEFT - 5.0
        )
        .ok();
    }
    let unit = if plot.figure == "value" { "" } else { "ms" };
    write!(
        out,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{unit}</text>",
        LEFT - 5.0,
        HEIGHT / 2.0
    )
    .ok();
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let at = seconds * share;
        let anchor = match share {
            0.0 => "start",
            1.0 => "end",
            _ => "middle",
        };
        write!(
            out,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"{anchor}\">{}</text>",
            scale.x(at),
            HEIGHT - 6.0,
            if at == 0.0 { "0 s".into() } else { length(at) }
        )
        .ok();
    }
    out.push_str("</svg>\n");
}

fn lines(out: &mut String, plot: &ProbePlot, scale: &Scale) {
    let (mut path, mut marks) = (String::new(), String::new());
    let mut is_joined = false;
    for PlotColumn(at, low, high, outside) in &plot.columns {
        let x = scale.x(*at);
        // Writing to a string cannot fail.
        if *outside > 0 {
            write!(marks, "M{x:.1} {:.0}v6", HEIGHT - BOTTOM).ok();
        }
        let (Some(low), Some(high)) = (low, high) else {
            is_joined = false;
            continue;
        };
        let (top, base) = (scale.y(*high), scale.y(*low));
        let command = if is_joined { 'L' } else { 'M' };
        write!(path, "{command}{x:.1} {base:.1}").ok();
        if base - top >= 0.1 {
            write!(path, "V{top:.1}").ok();
        } else if !is_joined {
            // A line of no length with round ends would not be drawn.
            path.push_str("h1");
        }
        is_joined = true;
    }
    if !path.is_empty() {
        write!(out, "<path class=\"data\" d=\"{path}\"/>").ok();
    }
    if !marks.is_empty() {
        write!(out, "<path class=\"out\" d=\"{marks}\"/>").ok();
    }
}
