//! Values that real writers wrote, for tests: out of the fixtures with more kinds than scalars.

use bytes::Bytes;

use crate::tfevents::event::{Event, Value, What};

/// tensorboardX and torch, with the same values.
pub(super) const MIXED: [&[u8]; 2] = [
    include_bytes!("../../../tests/fixtures/mixed/tensorboardx/events.out.tfevents.1784016270.trainer-0"),
    include_bytes!("../../../tests/fixtures/mixed/torch/events.out.tfevents.1784016728.trainer-0.4242.10"),
];

/// The values of all tags that begin with `prefix`, with their steps.
pub(super) fn values(file: &'static [u8], prefix: &str) -> Vec<(i64, Value)> {
    let mut found = Vec::new();
    let mut rest = Bytes::from_static(file);
    // A length of 8 bytes and its checksum of 4, the payload and its checksum.
    while let Some((length, _)) = rest.split_first_chunk() {
        let payload = rest.slice(12..).split_to(u64::from_le_bytes(*length).try_into().unwrap_or(usize::MAX));
        rest = rest.slice(12 + payload.len() + 4..);
        let Ok(Event { step, what: What::Values(values), .. }) = Event::decode(payload) else { continue };
        found.extend(values.into_iter().filter(|v| v.tag.starts_with(prefix.as_bytes())).map(|v| (step.0, v)));
    }
    found
}
