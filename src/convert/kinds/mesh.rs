//! Three-dimensional bodies: parts in tags of their own, put together when their row is whole.

use crate::convert::kinds::{BadValue, Carried, CarriedFile, Subject};
use crate::model::Json;
use crate::tfevents::event::Value;

/// One part of a body.
#[derive(Debug, Clone, PartialEq)]
pub struct MeshPart {}

pub(super) fn carry(_subject: &Subject<'_>, _value: &Value) -> Result<Carried, BadValue> {
    Err(BadValue::new("not carried"))
}

/// A body that was put together.
#[derive(Debug, Clone, PartialEq)]
pub struct Assembled {
    /// Its key in the run's history.
    pub key: String,
    /// Its history value, and the files that it speaks of; or why its parts make no body.
    pub body: Result<(Json, Vec<CarriedFile>), BadValue>,
    /// How many parts went into it.
    pub parts: u64,
}

/// Puts the parts of one row together. Each comes with the key that its tag has in the run.
pub fn assemble(_parts: Vec<(std::sync::Arc<str>, MeshPart)>) -> Vec<Assembled> {
    Vec::new()
}
