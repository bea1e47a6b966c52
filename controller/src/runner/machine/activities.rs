//! When each activity of the method or the rollbacks begins: in their order, each after the one before it unless that one
//! runs in the background.

use backburn_experiments::check::Experiment;
use backburn_experiments::document::{Activity, Pauses};
use backburn_experiments::journal::Phase;
use std::time::Duration;

/// The activities of one phase.
pub(super) struct Activities {
    phase: Phase,
    tracks: Vec<Track>,
    /// How many of them have had their turn.
    launched: usize,
}

/// One activity and how far it is.
struct Track {
    is_background: bool,
    pauses: Pauses,
    state: TrackState,
}

enum TrackState {
    /// Those before it come first.
    Waiting,
    /// It begins at this time.
    PausingUntil(Duration),
    /// The activity runs now.
    Running(RunningActivity),
    /// It is over at this time, which is when the next may begin.
    RestingUntil(Duration),
    /// No activity of the track is left.
    Over,
}

/// An activity that runs.
pub(super) struct RunningActivity {
    /// Name of the activity.
    pub(super) name: String,
    /// When the activity began, since the run's start.
    pub(super) began: Duration,
}

/// The activities that are played in this phase: the rollbacks, or else the method.
pub(in crate::runner) fn activities_of(experiment: &Experiment, phase: Phase) -> &[Activity] {
    match phase {
        Phase::Rollbacks => &experiment.rollbacks,
        _ => &experiment.method,
    }
}

impl Activities {
    /// Nothing to play.
    pub(super) fn none() -> Self {
        Activities {
            phase: Phase::Method,
            tracks: Vec::new(),
            launched: 0,
        }
    }

    /// All activities of this phase, none of which has begun.
    pub(super) fn of(experiment: &Experiment, phase: Phase) -> Self {
        let tracks = activities_of(experiment, phase).iter().map(|activity| {
            let pauses = activity.pauses.filter(|_| experiment.pauses(activity));
            Track {
                is_background: activity.background,
                pauses: pauses.unwrap_or_default(),
                state: TrackState::Waiting,
            }
        });
        Activities {
            phase,
            tracks: tracks.collect(),
            launched: 0,
        }
    }

    /// The phase that they belong to.
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// The next activity that is to begin now, by its place. The caller says with [`begin`](Activities::begin) that it has;
    /// else it counts as over.
    ///
    /// An activity in the background has its pauses there as well, as in the Chaos Toolkit.
    pub(super) fn take_ready(&mut self, now: Duration) -> Option<usize> {
        for track in &mut self.tracks {
            if matches!(track.state, TrackState::RestingUntil(until) if until <= now) {
                track.state = TrackState::Over;
            }
        }
        while !self.is_blocked()
            && let Some(track) = self.tracks.get_mut(self.launched)
        {
            let pause = track.pauses.before.unwrap_or_default().0;
            track.state = TrackState::PausingUntil(now.saturating_add(pause));
            self.launched += 1;
        }
        let ready =
            |track: &Track| matches!(track.state, TrackState::PausingUntil(until) if until <= now);
        let index = self.tracks.iter().position(ready)?;
        if let Some(track) = self.tracks.get_mut(index) {
            track.state = TrackState::Over;
        }
        Some(index)
    }

    /// Whether an activity that is not in the background is not over yet.
    fn is_blocked(&self) -> bool {
        let mut launched = self.tracks.iter().take(self.launched);
        launched.any(|track| !track.is_background && !matches!(track.state, TrackState::Over))
    }

    /// This activity has begun.
    pub(super) fn begin(&mut self, index: usize, name: String, began: Duration) {
        if let Some(track) = self.tracks.get_mut(index) {
            track.state = TrackState::Running(RunningActivity { name, began });
        }
    }

    /// Ends an activity that runs. None where it does not.
    pub(super) fn finish(&mut self, index: usize, now: Duration) -> Option<RunningActivity> {
        let track = self.tracks.get_mut(index)?;
        if !matches!(track.state, TrackState::Running(_)) {
            return None;
        }
        let pause = track.pauses.after.unwrap_or_default().0;
        let resting = TrackState::RestingUntil(now.saturating_add(pause));
        match std::mem::replace(&mut track.state, resting) {
            TrackState::Running(running) => Some(running),
            _ => None,
        }
    }

    /// Begins nothing more. Those that ran, by their places.
    pub(super) fn stop(&mut self) -> Vec<(usize, RunningActivity)> {
        let tracks = std::mem::take(&mut self.tracks).into_iter().enumerate();
        self.launched = 0;
        tracks
            .filter_map(|(index, track)| match track.state {
                TrackState::Running(running) => Some((index, running)),
                _ => None,
            })
            .collect()
    }

    /// Whether every activity is over.
    pub(super) fn are_over(&self) -> bool {
        let mut tracks = self.tracks.iter();
        tracks.all(|track| matches!(track.state, TrackState::Over))
    }

    /// When the next activity begins or ends its pause.
    pub(super) fn next_due(&self) -> Option<Duration> {
        let times = self.tracks.iter().filter_map(|track| match track.state {
            TrackState::PausingUntil(until) | TrackState::RestingUntil(until) => Some(until),
            TrackState::Waiting | TrackState::Running(_) | TrackState::Over => None,
        });
        times.min()
    }
}
