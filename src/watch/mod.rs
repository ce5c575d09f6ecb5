//! Watching is a reconciliation: compare what is there with what was there, and say what to do.
//!
//! Hints from the operating system only make the next look come sooner; they are never data.

pub mod hints;
pub mod plan;
