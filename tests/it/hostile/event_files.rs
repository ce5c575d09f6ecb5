//! Framing and compression that claim what is not there.

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use wandb_bridge::proto::tensorboard::summary::{Value, value};
use wandb_bridge::proto::tensorboard::{Event, Summary, event};
use wandb_bridge::tfevents::crc::masked_crc;
use wandb_bridge::tfevents::write::write_record;

use super::{begun, check_good, check_peak, import, skipped};
use crate::support::bridge::Place;
use crate::support::server::FakeServer;

/// The first bytes of a record of this length, with a good checksum.
fn header(length: u64) -> Vec<u8> {
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(masked_crc(&length.to_le_bytes()).to_le_bytes());
    bytes
}

/// Three good scalars, and then these bytes.
fn file_with(place: &Place, bytes: &[u8]) -> std::path::PathBuf {
    let path = begun(place).path().to_owned();
    OpenOptions::new().append(true).open(&path).unwrap().write_all(bytes).unwrap();
    path
}

#[test]
fn a_length_of_gigabytes_takes_no_memory() {
    // What may still come is waited for, what is longer than any record ends the file.
    for (length, reason, loss) in [
        (900 << 20, "unfinished last record", false),
        (1 << 30, "unfinished last record", false),
        ((1 << 30) + 1, "damaged file", true),
        (1 << 40, "damaged file", true),
        (u64::MAX, "damaged file", true),
    ] {
        let place = Place::new();
        file_with(&place, &header(length));
        let (ended, peak) = import(&place);
        check_peak(peak);
        check_good(&ended, 3);
        assert_eq!(skipped(&ended, reason), (1, loss), "{length}: {}", ended.stdout);
        let _ = ended.code(if loss { 3 } else { 0 });
    }
}

#[test]
fn a_tail_of_zeros_of_many_gigabytes_is_passed() {
    let place = Place::new();
    let path = file_with(&place, &[]);
    let length = fs::metadata(&path).unwrap().len();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(length + (4 << 30)).unwrap();
    let (ended, peak) = import(&place);
    check_peak(peak);
    check_good(&ended, 3);
    assert_eq!(ended.ok().json_summary()["skipped"].as_array().unwrap().len(), 0);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn compressed_files_do_not_explode() {
    let zeros = vec![0; 32 << 20];
    let good = {
        let place = Place::new();
        fs::read(begun(&place).path()).unwrap()
    };
    let zeros_member = gzip(&zeros);
    // A gigabyte of zeros in a megabyte, as a tail.
    let tail = [gzip(&good), zeros_member.repeat(32)].concat();
    // The same as the payload of one record.
    let record = [gzip(&[good.clone(), header(1 << 30)].concat()), zeros_member.repeat(32)].concat();
    // And by zlib, whose one stream is not divided.
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&good).unwrap();
    encoder.write_all(&header(900 << 20)).unwrap();
    encoder.write_all(&zeros).unwrap();
    let stream = encoder.finish().unwrap();
    for (bytes, lost) in [(tail, 0), (record, 1), (stream, 1)] {
        let place = Place::new();
        fs::create_dir(place.path("exp")).unwrap();
        fs::write(place.path("exp/events.out.tfevents.1784016000.trainer-0"), &bytes).unwrap();
        let (ended, peak) = import(&place);
        check_peak(peak);
        check_good(&ended, 3);
        assert_eq!(skipped(&ended, "damaged file"), (lost, lost > 0), "{}", ended.stdout);
        let _ = ended.code(if lost > 0 { 3 } else { 0 });
    }
}

#[test]
fn payloads_that_are_no_events_cost_only_themselves() {
    let mut bytes = Vec::new();
    // Groups in groups; a length beyond the end; ten thousand empty values; nothing at all is an event, too.
    write_record(&mut bytes, &[0x83, 0x01].repeat(100_000));
    write_record(&mut bytes, &[0x2a, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    // Two bytes for a value each: once decoded they would take more than a gigabyte.
    let values = [0x0a, 0].repeat(5 << 20);
    let mut event = vec![0x2a];
    prost::encoding::encode_varint(values.len() as u64, &mut event);
    event.extend(&values);
    write_record(&mut bytes, &event);
    write_record(&mut bytes, b"");
    let place = Place::new();
    file_with(&place, &bytes);
    let (ended, peak) = import(&place);
    check_peak(peak);
    check_good(&ended, 3);
    assert_eq!(skipped(&ended, "damaged record"), (3, true), "{}", ended.stdout);
    let _ = ended.code(3);
}

#[test]
fn how_large_records_may_be_can_be_chosen() {
    let (place, server) = (Place::new(), FakeServer::start());
    let text = Value { tag: "x".repeat(3000).into(), value: Some(value::Value::SimpleValue(1.0)), ..Value::default() };
    let large = Event { what: Some(event::What::Summary(Summary { value: vec![text] })), ..Event::default() };
    let mut writer = begun(&place);
    writer.append(&[large]);
    writer.scalars("good", [(3, 2.0)]);
    let import = || place.import(&server, ["exp"]).arg("--json");
    let rows = || server.runs()[0].history.len();
    let ended = import().args(["--max-record", "2kB"]).run().code(3);
    assert_eq!((skipped(&ended, "damaged file"), rows()), ((1, true), 3), "{}", ended.stdout);
    let ended = place.call(["inspect", "exp", "--max-record", "2kB", "--json"]).run().code(3);
    assert_eq!(skipped(&ended, "damaged file"), (1, true), "{}", ended.stdout);
    place.call(["inspect", "exp"]).run().ok();
    import().env("WANDB_BRIDGE_MAX_RECORD", "2kB").run().code(3);
    import().run().ok();
    assert_eq!(rows(), 5);
    server.assert_content();
}
