//! Two halves.
