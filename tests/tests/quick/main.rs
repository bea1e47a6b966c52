//! Tests that need neither root nor other software than Rust: the structure of the source, the documents, the language and the API.
//! What a test lacks, it says, and is skipped.

mod api;
mod api_secrets;
mod architecture;
mod deploy;
mod docs;
mod fault_purity;
mod language;
mod mail;
mod packages;
mod plain_english;
mod schema_verdicts;
