//! Memory follows from the largest record and the number of tags, not from the size of the input.
//!
//! `WANDB_BRIDGE_LARGE_INPUT` is the size of the larger input in bytes: `1073741824` for a gigabyte.

use bytes::Bytes;
use wandb_bridge::proto::tensorboard::Event;
use wandb_bridge::proto::tensorboard::summary::Image;
use wandb_bridge::proto::tensorboard::summary::value::Value as Data;

use super::{import, value, values};
use crate::support::bridge::Place;
use crate::support::events::{Writer, scalar};

/// Scalars of some tags, and every now and then something larger.
fn input(place: &Place, size: u64) {
    let mut writer = Writer::new(&place.path("exp"));
    let (mut step, mut written) = (0, 0);
    while written < size {
        let mut events: Vec<Event> = Vec::with_capacity(1001);
        for number in 0..1000 {
            events.push(scalar(
                step + number / 10,
                ["a tag with a longer name", "b", "c"][(number % 3) as usize],
                number as f32,
            ));
        }
        let picture: Vec<u8> = [b"\x89PNG\r\n\x1a\n".as_slice(), &step.to_le_bytes(), &[7; 50_000]].concat();
        let image = Image { encoded_image_string: Bytes::from(picture), ..Image::default() };
        events.push(values(step, vec![value("picture", "", Some(Data::Image(image)))]));
        written += 100_000;
        step += 1000;
        writer.append(&events);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn ten_times_the_input_takes_no_more_memory() {
    let large =
        std::env::var("WANDB_BRIDGE_LARGE_INPUT").ok().and_then(|text| text.parse().ok()).unwrap_or(40_u64 << 20);
    let peak = |size| {
        let place = Place::new();
        input(&place, size);
        let (ended, peak) = import(&place);
        let _ = ended.ok();
        peak
    };
    let (small, large) = (peak(large / 10), peak(large));
    assert!(large < small + small / 5 + (8 << 20), "{} MiB for a tenth, {} MiB for all", small >> 20, large >> 20);
}
