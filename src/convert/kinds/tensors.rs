//! Tensors that no plugin claims, data of unknown plugins, and old forms: kept as files.

use crate::convert::kinds::{BadValue, Carried, Subject};
use crate::tfevents::ValueKind;
use crate::tfevents::event::Value;

pub(super) fn carry(_subject: &Subject<'_>, _kind: &ValueKind, _value: &Value) -> Result<Carried, BadValue> {
    Err(BadValue::new("not carried"))
}
