//! Text.

use crate::convert::kinds::{BadValue, Carried, Subject};
use crate::tfevents::event::Value;

pub(super) fn carry(_subject: &Subject<'_>, _value: &Value) -> Result<Carried, BadValue> {
    Err(BadValue::new("not carried"))
}
