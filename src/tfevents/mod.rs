//! Event files: from bytes on disk to events.
//!
//! In the order of the data's path: [`mod@discover`] finds TB runs and their files, [`reader`] finds records in a file that
//! may still grow ([`record`] and [`crc`] hold the framing), [`scan`] and [`event`] say what a payload holds, [`kind`],
//! [`encoding`] and [`tensor`] what a value is, and [`source`] puts them together: the events of one file, with the tags of the TB
//! run ([`tags`]). Has never heard of W&B.

#[cfg(test)]
mod arbitrary;
pub mod crc;
pub mod discover;
pub mod encoding;
pub mod event;
pub mod file_name;
mod inflate;
mod input;
pub mod kind;
pub mod reader;
pub mod record;
pub mod scan;
pub mod source;
pub mod tags;
pub mod tensor;
mod walk;
mod wire;
pub mod write;

pub use discover::{Discovery, EventFileInfo, FirstRecord, TbRun, ask_anew, discover, discover_knowing, peek};
pub use encoding::Encoding;
pub use file_name::host_of;
pub use inflate::Compression;
pub use input::Rewritten;
pub use kind::ValueKind;
pub use source::{BadRecord, EventFile, FilePosition, Next, Point, SourceEvent};
pub use tags::{TagId, TagTable};
pub use walk::Known;
