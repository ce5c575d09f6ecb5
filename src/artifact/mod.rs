//! Artifacts before they are sent: which files go in, what their digests are, and how a version is described.
//!
//! [`collect`] finds the files, [`hash_files`] reads each once, and a [`Manifest`] says what a version holds. Two versions
//! with the same paths and digests have the same digest, and are one version on the server.
//!
//! Pure but for reading files. This room has never heard of the network, of runs, or of what a log is.

mod attach;
mod collect;
mod hash;
mod manifest;
mod names;
mod places;

pub use attach::{Attached, Attachment};
pub use collect::{CollectError, Found, LeftOut, WhyLeftOut, collect, collect_below, inside};
pub use hash::{HashError, Hashed, Mark, Multipart, Part, hash_file, hash_files, hash_parts, md5_base64};
pub use manifest::{Entry, LocalFile, Manifest, STORAGE_POLICY};
pub use names::{
    NameError, check_alias, check_name, check_tag, check_type, safe_name, stable_client_id, stable_run_id,
};
pub use places::Places;
