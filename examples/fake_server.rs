//! The tests' W&B server as a program, for benchmarks and for trying things by hand.
//!
//! Prints its URL on the first line of stdout and its key on the second, and serves until SIGINT or SIGTERM. `GET
//! /__state` answers with all that it holds as JSON; `--dump FILE` writes that at the end.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs, reason = "test support")]

#[path = "../tests/support/mod.rs"]
mod support;

use clap::Parser;
use support::server::{FakeServer, Options};

/// Serve as W&B does, for tests.
#[derive(Parser)]
struct Arguments {
    /// Write what is held to a file at the end, as JSON
    #[arg(long)]
    dump: Option<std::path::PathBuf>,
    /// Offer a server feature, such as FILESTREAM_GZIP
    #[arg(long)]
    feature: Vec<String>,
    /// Accept any key
    #[arg(long)]
    any_key: bool,
    /// Do not look into history lines
    #[arg(long)]
    no_checks: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments = Arguments::parse();
    let mut options = Options { check_rows: !arguments.no_checks, threads: 1, ..FakeServer::builder() };
    options.features.extend(arguments.feature);
    if arguments.any_key {
        options.key = None;
    }
    let server = options.start();
    println!("{}\n{}", server.url(), server.key());
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
    if let Some(place) = arguments.dump {
        std::fs::write(place, server.dump()).unwrap();
    }
}
