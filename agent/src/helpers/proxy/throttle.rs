//! When how much may pass: bandwidth and slices, as arithmetic over instants.

use super::stream_effects::{Slicer, StreamEffects};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng as _;
use std::time::{Duration, Instant};

/// What passes at once where there is a bandwidth: as much as it allows for in this time.
const RATE_WINDOW: Duration = Duration::from_millis(10);

/// How fast one way of one connection goes.
pub(super) struct Throttle {
    /// The rate in bytes per second; none if it is not limited.
    rate: Option<f64>,
    /// When the bandwidth is free again.
    free: Instant,
    slicer: Option<Slicer>,
    /// What is left of the piece that is being sent.
    piece: usize,
    /// When the next piece may go.
    next_piece: Instant,
    rng: ChaCha8Rng,
}

impl Throttle {
    pub(super) fn new(harm: &StreamEffects, rng: ChaCha8Rng, now: Instant) -> Self {
        let mut throttle = Throttle {
            rate: harm.bandwidth.map(|size| size.0 as f64),
            free: now,
            slicer: harm.slicer.clone(),
            piece: 0,
            next_piece: now,
            rng,
        };
        throttle.cut();
        throttle
    }

    /// Whether it is any other than: as fast as it goes.
    pub(super) fn limits(&self) -> bool {
        self.rate.is_some() || self.slicer.is_some()
    }

    /// When something may pass; what is past is now.
    pub(super) fn next(&self) -> Instant {
        self.free.max(self.next_piece)
    }

    /// The most that passes at once.
    pub(super) fn portion(&self) -> usize {
        let of_rate = self.rate.map_or(usize::MAX, |rate| {
            ((rate * RATE_WINDOW.as_secs_f64()) as usize).max(1)
        });
        match self.slicer {
            Some(_) => of_rate.min(self.piece),
            None => of_rate,
        }
    }

    /// So much has passed.
    pub(super) fn passed(&mut self, count: usize, now: Instant) {
        if let Some(rate) = self.rate {
            // A late waking is made good; a long silence is not.
            let since = now.checked_sub(RATE_WINDOW).unwrap_or(now);
            self.free = self.free.max(since) + Duration::from_secs_f64(count as f64 / rate);
        }
        self.piece = self.piece.saturating_sub(count);
        if self.piece == 0
            && let Some(slicer) = &self.slicer
        {
            self.next_piece = now + slicer.delay.unwrap_or_default().0;
            self.cut();
        }
    }

    /// Chooses how large the next piece is.
    fn cut(&mut self) {
        let Some(slicer) = &self.slicer else { return };
        let variation = slicer.variation.map_or(0, |size| size.0);
        let spread = self.rng.next_u64() % variation.saturating_mul(2).saturating_add(1);
        let size = slicer
            .size
            .0
            .saturating_sub(variation)
            .saturating_add(spread);
        self.piece = usize::try_from(size).unwrap_or(usize::MAX).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Rate, Size};
    use backburn_experiments::HumanDuration;
    use rand_chacha::rand_core::SeedableRng as _;

    fn throttle(harm: StreamEffects, now: Instant) -> Throttle {
        Throttle::new(&harm, ChaCha8Rng::seed_from_u64(1), now)
    }

    #[test]
    fn throttle_late_sender_reaches_the_rate() {
        let start = Instant::now();
        let mut throttle = throttle(
            StreamEffects {
                bandwidth: Some(Rate(100_000)),
                ..StreamEffects::default()
            },
            start,
        );
        let (mut now, mut passed) = (start, 0);
        while now < start + Duration::from_secs(2) {
            assert_eq!(throttle.portion(), 1000);
            throttle.passed(throttle.portion(), now);
            passed += 1000;
            // Woken a little late, each time.
            now = now.max(throttle.next()) + Duration::from_micros(300);
        }
        assert!((198_000..=203_000).contains(&passed), "{passed}");
        // A second of silence is no credit for a second.
        now += Duration::from_secs(1);
        let mut burst = 0;
        while throttle.next() <= now {
            throttle.passed(throttle.portion(), now);
            burst += 1000;
        }
        assert!(burst <= 3000, "{burst}");
    }

    #[test]
    fn throttle_pieces_vary_around_their_size() {
        let start = Instant::now();
        let mut throttle = throttle(
            StreamEffects {
                slicer: Some(Slicer {
                    size: Size(100),
                    variation: Some(Size(40)),
                    delay: Some(HumanDuration::millis(3)),
                }),
                ..StreamEffects::default()
            },
            start,
        );
        let mut now = start;
        let mut sizes = Vec::new();
        for _ in 0..1000 {
            sizes.push(throttle.portion());
            throttle.passed(throttle.portion(), now);
            assert_eq!(throttle.next(), now + Duration::from_millis(3));
            now = throttle.next();
        }
        assert!(sizes.iter().all(|size| (60..=140).contains(size)));
        assert!(sizes.iter().any(|size| *size < 70) && sizes.iter().any(|size| *size > 130));
        let mean = sizes.iter().sum::<usize>() as f64 / 1000.0;
        assert!((95.0..=105.0).contains(&mean), "{mean}");
    }
}
