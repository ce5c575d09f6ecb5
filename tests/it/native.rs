//! Logs of the official client, whole, through `sync`: what they print, say and keep, in however many logs, alive or
//! damaged.

mod bulk;
mod clients;
mod console;
mod damage;
#[cfg(target_os = "linux")]
mod harness;
#[cfg(unix)]
mod links;
mod live;
mod logs;
mod odd;
mod records;
mod segments;
