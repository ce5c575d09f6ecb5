//! `wandb-bridge` brings TensorBoard event files and W&B run logs to a W&B server: everything in the files, on the right
//! axis, once — or it says what is not there and why.
//!
//! # The map of the house
//!
//! Two halves share a file and one moving number. The left half reads, parses and converts (threads); the right half
//! uploads (async). Between them lies the run datastore, a `.wandb` log on disk, and the position up to which it counts.
//!
//! ```text
//!  event files ─► tfevents ─► convert ─► sink ─► run-ID.wandb ─┬─► upload ─► api ─► W&B
//!                  Event      RunUpdate          (durable)     │   Entry     Request
//!  logs of any W&B client ─────────────────────────────────────┘
//! ```
//!
//! *offline* = the right half is not built; `sync` = only the right half; *online* = both; a dry run = the left half with a
//! sink that counts; *disabled* ends before either half is built. Only [`pipeline`] looks at the mode.
//!
//! | room | what it does | what it has never heard of |
//! |---|---|---|
//! | [`model`] | ids, numbers, JSON, run updates, counted skips | protobuf, files, the network, the clock |
//! | [`tfevents`] | bytes → events; which files there are | W&B |
//! | [`convert`] | events → run updates: layout, keys, axes, rows, ids; one file a kind | files, the clock, the network |
//! | [`wandb_format`] | bytes ↔ entries of a log; run directories | TensorBoard, HTTP |
//! | [`config_files`] | config files of runs: which are there, what they say | events, runs |
//! | [`listings`] | which names directories held when they were walked, for all who look for something in them | the file system |
//! | [`survey`] | paths → the runs that would be made | writing |
//! | [`checkpoint`], [`sink`], [`recorder`] | one run's left half: read, convert, append, commit | the server |
//! | [`cleaned`] | runs whose log was deleted after it arrived | what was acknowledged |
//! | [`side_files`] | what TensorBoard reads beside event files: projector, profiles | what a run is, copying |
//! | [`known_runs`] | runs that were recorded before | the server |
//! | [`artifact`] | which files go into an artifact, their digests, its manifest | logs, the network |
//! | [`watch`] | what changed between two looks (pure), hints to look sooner | what a run is |
//! | [`api`] | GraphQL, file stream, signed URLs, retries, credentials: all HTTP | logs |
//! | [`verify`] | what a run is to hold against what the server tells of it | logs, requests |
//! | [`upload`] | log entries → requests, and what was acknowledged | event files |
//! | [`free_space`] | how much of the disk is to stay free | what is written |
//! | [`state_file`] | small state, replaced atomically; locks between processes | what they are used for |
//! | [`cli`], [`settings`] | what can be typed; the one reader of environment and settings files | runs |
//! | [`commands`] | one file a command; all that a person reads; errors and exit codes | |
//! | [`pipeline`] | the wiring: the only place that starts threads and tasks | |
//! | [`proto`] | messages generated from `proto/`, committed | |
//!
//! Who may use whom is a table in `tests/it/tidy.rs`; the arrows point inwards to [`model`].
//!
//! # Invariants
//!
//! - **Crash order**: write the files that rows speak of → append and sync the log → save the checkpoint (it holds the published position) → wake the uploader.
//!   A log is cut back to its checkpoint before anything is appended, and read only up to it.
//! - Nothing is uploaded that is not durable in the log; nothing is called synced that the server did not acknowledge.
//! - A line of history has one offset for ever: a request that is sent again says the same at the same place.
//! - An exit record is only ever the last record of a log.
//! - No value overwrites another; events of one source never change places.
//! - The same logs have the same run id whatever path named them.
//! - No length, shape or size in a file is believed before the bytes are there. Nothing panics on any input.
//! - The key goes to the configured host only: never to storage URLs, logs, errors, or a redirect.
//!
//! # What is not here
//!
//! What W&B has no type for is kept as a file of the run. There is no second path to the server beside the log, but for
//! `artifact put`, which has no log; no database, and no background service.

pub mod api;
pub mod artifact;
pub mod checkpoint;
pub mod cleaned;
pub mod cli;
pub mod commands;
pub mod config_files;
pub mod convert;
pub mod free_space;
pub mod known_runs;
pub mod listings;
pub mod model;
pub mod pipeline;
pub mod proto;
pub mod recorder;
pub mod settings;
pub mod side_files;
pub mod sink;
pub mod state_file;
pub mod survey;
pub mod tfevents;
pub mod upload;
pub mod verify;
pub mod wandb_format;
pub mod watch;
