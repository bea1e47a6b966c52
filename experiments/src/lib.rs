//! The language everyone in Backburn speaks: the experiment document, what a probe's value is
//! judged by, who is picked, the journal and its verdict, and the messages between controller and
//! agent. No I/O, no clock, no tokio: everything here is a pure function over plain data.

pub mod abort;
pub mod argv;
pub mod chaostoolkit;
pub mod check;
pub mod confidence;
pub mod destination;
pub mod dns_message;
pub mod document;
pub mod duration;
pub mod forecast;
pub mod game_day;
pub mod hexadecimal;
pub mod join;
pub mod journal;
pub mod json;
pub mod labels;
pub mod late_revert;
pub mod percent;
pub mod probes;
pub mod problem;
pub mod program_environment;
pub mod providers;
mod python;
pub mod redact;
pub mod schema;
pub mod select;
pub mod server_verifier;
mod size_in_memory;
pub mod substitute;
pub mod suggest;
pub mod terminal_text;
pub mod text_table;
pub mod timetable;
pub mod token;
pub mod tolerance;
pub mod usage_message;
pub mod wire;

pub use duration::HumanDuration;
pub use hexadecimal::hexadecimal;
pub use problem::Problem;
pub use wire::protocol;
