//! Whole-program tests of `watch`: the real binary beside files that grow, against a server that holds what it is sent.
//!
//! Nothing here waits for time to pass: tests wait until the server holds something, the program says something, or the
//! program ends.

#[cfg(unix)]
mod command;
#[cfg(unix)]
mod ending;
#[cfg(unix)]
mod growing;
mod harness;
#[cfg(unix)]
mod signals;
#[cfg(unix)]
mod weather;
