//! Event files: from bytes on disk to events.
//!
//! In the order of the data's path: [`discover`] finds TB runs and their files, [`reader`] finds records in a file that
//! may still grow ([`record`] and [`crc`] hold the framing), [`event`] and [`tensor`] say what a payload means, and
//! [`source`] delivers the events of one file with their tags and kinds. Has never heard of W&B.

pub mod crc;
mod inflate;
mod input;
pub mod reader;
pub mod record;
pub mod write;
