//! The page: static files inside the program, which use nothing but the public API. A browser that has shown a token once keeps a
//! [session cookie](session) instead, which no script can read.

mod assets;
pub mod session;

pub use assets::routes;
