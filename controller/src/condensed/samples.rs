//! Which samples of a probe stand for all of them: a long run has more than can be drawn, and none that matters may be missing.

use backburn_experiments::journal::Judgement;

/// The most pieces of time. When there are more, each two neighbours become one, so that pieces are always equally long.
const MAX_PIECES: usize = 1_000;
/// How long a piece is at first, in seconds. Most probes are checked less often, so that a short run keeps all of its samples.
const FIRST_PIECE_SECONDS: f64 = 0.01;

/// A sample that was measured, as it is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct KeptSample {
    /// Its number among the samples of its probe, from 0.
    pub(crate) number: u64,
    /// When it was answered, in seconds since the run started.
    pub(crate) at: f64,
    /// The number that was measured; none if it was something else.
    pub(crate) value: Option<f64>,
    /// How long it took, in milliseconds.
    pub(crate) took: f64,
    pub(crate) judgement: Judgement,
}

/// The samples of a piece of time that stand for all of it: where the line of a chart enters and leaves it, its extremes, and its failures.
#[derive(Debug, Clone, Copy)]
struct TimePiece {
    index: u64,
    first: KeptSample,
    last: KeptSample,
    quickest: KeptSample,
    slowest: KeptSample,
    lowest: Option<KeptSample>,
    highest: Option<KeptSample>,
    outside: Option<KeptSample>,
    unknown: Option<KeptSample>,
}

impl TimePiece {
    fn of(index: u64, sample: KeptSample) -> Self {
        let mut piece = TimePiece {
            index,
            first: sample,
            last: sample,
            quickest: sample,
            slowest: sample,
            lowest: None,
            highest: None,
            outside: None,
            unknown: None,
        };
        piece.add(sample);
        piece
    }

    /// Takes in a sample that comes after all others.
    fn add(&mut self, sample: KeptSample) {
        self.last = sample;
        if sample.took < self.quickest.took {
            self.quickest = sample;
        }
        if sample.took > self.slowest.took {
            self.slowest = sample;
        }
        if sample.value.is_some() {
            if (self.lowest).is_none_or(|lowest| sample.value < lowest.value) {
                self.lowest = Some(sample);
            }
            if (self.highest).is_none_or(|highest| sample.value > highest.value) {
                self.highest = Some(sample);
            }
        }
        match sample.judgement {
            Judgement::Within => {}
            Judgement::Outside => self.outside = self.outside.or(Some(sample)),
            Judgement::Unknown => self.unknown = self.unknown.or(Some(sample)),
        }
    }

    /// All that are kept, in their order, each once.
    fn all(&self) -> Vec<KeptSample> {
        self.sorted([
            Some(self.quickest),
            Some(self.slowest),
            self.lowest,
            self.highest,
        ])
    }

    /// Those that are drawn: extremes of the value, or of the time that answers took.
    fn drawn(&self, is_numeric: bool) -> Vec<KeptSample> {
        let times = (!is_numeric).then_some([self.quickest, self.slowest]);
        let values = [self.lowest, self.highest].map(|extreme| extreme.filter(|_| is_numeric));
        let [quickest, slowest] = times.map_or([None, None], |times| times.map(Some));
        self.sorted([quickest, slowest, values[0], values[1]])
    }

    fn sorted(&self, extremes: [Option<KeptSample>; 4]) -> Vec<KeptSample> {
        let ends = [Some(self.first), Some(self.last)];
        let failures = [self.outside, self.unknown];
        let kept = ends.into_iter().chain(extremes).chain(failures);
        let mut kept: Vec<KeptSample> = kept.flatten().collect();
        kept.sort_by_key(|sample| sample.number);
        kept.dedup_by_key(|sample| sample.number);
        kept
    }
}

/// The samples of a probe, as they come, in bounded memory.
#[derive(Debug, Clone)]
pub(crate) struct ReducedSamples {
    /// The length of a piece, in seconds.
    width: f64,
    pieces: Vec<TimePiece>,
}

impl Default for ReducedSamples {
    fn default() -> Self {
        ReducedSamples {
            width: FIRST_PIECE_SECONDS,
            pieces: Vec::new(),
        }
    }
}

impl ReducedSamples {
    /// Takes in the next sample.
    pub(crate) fn push(&mut self, sample: KeptSample) {
        let index = (sample.at / self.width) as u64;
        match self.pieces.last_mut() {
            // A clock that steps back makes no earlier piece.
            Some(last) if index <= last.index => last.add(sample),
            _ => self.pieces.push(TimePiece::of(index, sample)),
        }
        while self.pieces.len() > MAX_PIECES {
            self.join_neighbours();
        }
    }

    fn join_neighbours(&mut self) {
        self.width *= 2.0;
        let mut joined: Vec<TimePiece> = Vec::with_capacity(MAX_PIECES);
        for mut piece in self.pieces.drain(..) {
            piece.index /= 2;
            match joined.last_mut() {
                Some(last) if last.index == piece.index => {
                    piece.all().into_iter().for_each(|sample| last.add(sample));
                }
                _ => joined.push(piece),
            }
        }
        self.pieces = joined;
    }

    /// The samples that stand for all, in their order: of each piece of time the first, the last, the lowest, the highest, and the first
    /// of those that failed and of those that could not be judged. Up to [`MAX_PIECES`] samples are all there.
    pub(crate) fn drawn(&self, is_numeric: bool) -> Vec<KeptSample> {
        let pieces = self.pieces.iter();
        pieces.flat_map(|piece| piece.drawn(is_numeric)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples five times a second: a value that repeats, and what `change` makes of it.
    fn reduced(count: u64, change: impl Fn(&mut KeptSample)) -> ReducedSamples {
        let mut reduced = ReducedSamples::default();
        for number in 0..count {
            let mut sample = KeptSample {
                number,
                at: number as f64 / 5.0,
                value: Some((number % 7) as f64),
                took: 10.0 + (number % 3) as f64,
                judgement: Judgement::Within,
            };
            change(&mut sample);
            reduced.push(sample);
        }
        reduced
    }

    #[test]
    fn samples_of_a_short_run_are_all_kept() {
        let drawn = reduced(1_000, |_| {}).drawn(true);
        assert_eq!(drawn.len(), 1_000);
        assert!(drawn.windows(2).all(|two| two[0].number < two[1].number));
    }

    #[test]
    fn samples_of_a_long_run_keep_each_spike_and_each_failure() {
        let spikes = [17_u64, 1_234, 20_000, 35_999];
        let failures = [3_u64, 9_999, 30_001];
        let unknown = [12_345_u64];
        let reduced = reduced(36_000, |sample| {
            if spikes.contains(&sample.number) {
                sample.value = Some(900.0);
            }
            if failures.contains(&sample.number) {
                sample.judgement = Judgement::Outside;
            }
            if unknown.contains(&sample.number) {
                sample.judgement = Judgement::Unknown;
                sample.value = None;
            }
        });
        let drawn = reduced.drawn(true);
        assert!(
            drawn.len() < 6 * MAX_PIECES && drawn.len() > MAX_PIECES,
            "{}",
            drawn.len()
        );
        let has = |number: &u64| drawn.iter().any(|sample| sample.number == *number);
        assert!(spikes.iter().chain(&failures).chain(&unknown).all(has));
        assert_eq!(
            (drawn[0].number, drawn[drawn.len() - 1].number),
            (0, 35_999)
        );
        assert!(drawn.windows(2).all(|two| two[0].number < two[1].number));
    }

    #[test]
    fn samples_without_a_number_keep_the_slowest_answers() {
        let reduced = reduced(36_000, |sample| {
            sample.value = None;
            if sample.number == 22_222 {
                sample.took = 5_000.0;
            }
        });
        assert!(
            reduced
                .drawn(false)
                .iter()
                .any(|sample| sample.took == 5_000.0)
        );
    }

    #[test]
    fn samples_that_come_one_by_one_are_as_exact_as_pieces_of_their_length() {
        // Joining pieces loses no extreme of the whole that one long piece would have.
        let reduced = reduced(100_000, |sample| {
            sample.value = Some((sample.number * 7_919 % 10_007) as f64)
        });
        let drawn = reduced.drawn(true);
        for piece in 0..20 {
            let is_in = |sample: &&KeptSample| sample.number / 5_000 == piece;
            let highest = drawn
                .iter()
                .filter(is_in)
                .filter_map(|sample| sample.value)
                .fold(0.0, f64::max);
            let all = (piece * 5_000..(piece + 1) * 5_000).map(|number| number * 7_919 % 10_007);
            assert_eq!(Some(highest as u64), all.max());
        }
    }

    #[test]
    fn sample_whose_time_steps_back_is_kept_in_the_last_piece() {
        let mut reduced = reduced(10, |_| {});
        let back = KeptSample {
            number: 10,
            at: 0.0,
            value: Some(1e9),
            took: 1.0,
            judgement: Judgement::Outside,
        };
        reduced.push(back);
        assert_eq!(reduced.drawn(true).last(), Some(&back));
    }
}
