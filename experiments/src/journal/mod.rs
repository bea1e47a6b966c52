//! What happened in a run, append-only, and what follows from it. The verdict is a fold over
//! the events: the same function reads a journal that is being written and one from last year.

mod event;
mod fold;
mod measured;
mod outcome;
mod trace;
mod verdict;

pub use event::*;
pub use fold::*;
pub use measured::{ProbeSamples, SamplePeriod};
pub use outcome::*;
pub use trace::trace;
pub use verdict::*;
