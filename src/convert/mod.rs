//! Events in, run updates out: which directories make a run, what a row is, which axis a metric lies on.
//!
//! Pure: no files, no clock, no network. Whoever calls brings the facts (directories, tags, first records) and takes
//! plans and [`RunUpdate`](crate::model::RunUpdate)s away.

pub mod artifact_rule;
pub mod axes;
pub mod config;
pub mod filters;
pub mod globs;
pub mod keys;
pub mod kinds;
pub mod layout;
pub mod merge;
pub mod restarts;
pub mod rows;
pub mod run;
pub mod run_filter;
pub mod run_id;
pub mod summaries;
pub mod tag_names;
pub mod template;
