//! Directories as writers leave them, looked at.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
