//! Messages generated from `proto/` with prost. Committed, so that building needs nothing but Rust; `tests/it/proto.rs`
//! fails when they are stale, and writes them anew when `UPDATE_PROTO=1` is set.

#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    unreachable_pub,
    reason = "generated; `proto/` holds the comments"
)]
#[rustfmt::skip]
pub mod tensorboard;
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    unreachable_pub,
    reason = "generated; `proto/` holds the comments"
)]
#[rustfmt::skip]
pub mod wandb_internal;
