//! (the map of the house: being written)

pub mod api;
pub mod checkpoint;
pub mod cli;
pub mod commands;
pub mod convert;
pub mod lock;
pub mod model;
pub mod pipeline;
pub mod proto;
pub mod settings;
pub mod sink;
pub mod state_file;
pub mod tfevents;
pub mod upload;
pub mod wandb_format;
pub mod watch;
