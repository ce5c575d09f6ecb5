//! Converting stays streaming: many images never stand in memory at the same time.

use std::fs;

use bytes::Bytes;
use wandb_bridge::proto::tensorboard::summary::{Image, Value, value};
use wandb_bridge::proto::tensorboard::{Event, Summary, event};

use crate::support::bridge::Place;
use crate::support::events::Writer;
use crate::support::server::hex;

/// A picture of one pixel that has no equal: its number stands in a comment, with as much after it as makes it `size`.
fn picture(number: u32, size: usize) -> Bytes {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8; 4], data: &[u8]| {
        let content = [kind.as_slice(), data].concat();
        png.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        png.extend(&content);
        png.extend(crc32fast::hash(&content).to_be_bytes());
    };
    chunk(b"IHDR", &[0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0]);
    let mut comment = format!("Comment\0{number}").into_bytes();
    comment.resize(comment.len().max(size), b' ');
    chunk(b"tEXt", &comment);
    // One black pixel: a stored block of deflate with two zeros.
    chunk(b"IDAT", &[0x78, 0x01, 0x01, 0x02, 0x00, 0xfd, 0xff, 0x00, 0x00, 0x00, 0x02, 0x00, 0x01]);
    chunk(b"IEND", &[]);
    png.into()
}

fn event(step: u32, size: usize) -> Event {
    let image = Image { height: 1, width: 1, colorspace: 1, encoded_image_string: picture(step, size) };
    let value = Value { tag: "picture".into(), value: Some(value::Value::Image(image)), ..Value::default() };
    Event { step: step.into(), what: Some(event::What::Summary(Summary { value: vec![value] })), ..Event::default() }
}

#[test]
#[cfg(target_os = "linux")]
fn ten_thousand_images_take_no_more_memory_than_a_hundred() {
    const SIZE: usize = 8 << 10;
    let peak = |images: u32| {
        let place = Place::new();
        let mut writer = Writer::new(&place.path("exp"));
        for first in (0..images).step_by(100) {
            let events: Vec<Event> = (first..first + 100).map(|step| event(step, SIZE)).collect();
            writer.append(&events);
        }
        let (ended, peak) = place.import_offline(["exp"]).arg("--json").spawn().wait_and_measure();
        let summary = ended.ok().json_summary();
        assert_eq!(summary["kinds"]["images"]["sent"].as_u64(), Some(images.into()), "{summary}");
        let log = place.log();
        let folder = log.parent().unwrap().join("files/media/images");
        assert_eq!(fs::read_dir(folder).unwrap().count(), images as usize);
        peak
    };
    let (few, many) = (peak(100), peak(10_000));
    let more = many.saturating_sub(few);
    // All of them are 80 MB.
    assert!(more < 20 << 20, "{few} bytes for 100 images, {many} for 10,000");
}

/// The pictures are right: each has a digest of its own, and Python can show them.
#[test]
fn the_pictures_are_pictures() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), picture(7, 100)).unwrap();
    let look = "import sys; from PIL import Image; print(Image.open(sys.argv[1]).convert('L').getpixel((0, 0)))";
    let output = crate::support::python::inline(look).arg(file.path()).run().ok();
    assert_eq!(output.stdout.trim(), "0");
    use sha2::Digest as _;
    assert_ne!(hex(&sha2::Sha256::digest(picture(1, 100))), hex(&sha2::Sha256::digest(picture(2, 100))));
}
