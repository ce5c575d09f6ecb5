//! Reads a log without the program's own reader: strictly, so that what is left behind a crash is seen.

use std::fs;
use std::path::Path;

use prost::Message as _;
use wandb_bridge::model::Json;
use wandb_bridge::proto::wandb_internal::Record;
use wandb_bridge::proto::wandb_internal::record::RecordType;

/// What a log holds.
pub(super) struct Log {
    pub(super) length: u64,
    pub(super) rows: Vec<Json>,
    /// The paths of its files, in order.
    pub(super) files: Vec<String>,
    pub(super) exit: Option<i32>,
    pub(super) next_num: i64,
}

/// Reads a log. Panics at anything that a log must not hold: a damaged record, a number out of order, a second exit, or
/// anything behind it.
pub(super) fn read(path: &Path) -> Log {
    read_up_to(path, usize::MAX)
}

/// The same for the first bytes of a log, which must end between two records.
pub(super) fn read_up_to(path: &Path, length: usize) -> Log {
    let mut bytes = fs::read(path).unwrap();
    bytes.truncate(length);
    let mut log = Log { length: bytes.len() as u64, rows: Vec::new(), files: Vec::new(), exit: None, next_num: 1 };
    for record in records(&bytes) {
        let record = Record::decode(&*record).unwrap();
        assert_eq!(record.num, log.next_num, "a record number in {}", path.display());
        assert_eq!(log.exit, None, "something follows the exit in {}: {record:?}", path.display());
        log.next_num += 1;
        match record.record_type {
            Some(RecordType::History(history)) => {
                let members = history.item.into_iter().map(|item| {
                    let key = if item.nested_key.is_empty() { item.key } else { item.nested_key.join(".") };
                    (key, Json::parse(&item.value_json).unwrap())
                });
                log.rows.push(Json::Object(members.collect()));
            }
            Some(RecordType::Files(files)) => log.files.extend(files.files.iter().map(|file| file.path.to_string())),
            Some(RecordType::Exit(exit)) => log.exit = Some(exit.exit_code),
            _ => {}
        }
    }
    log
}

/// The records of a log: blocks of 32 KiB after a header of 7 bytes, chunks with a checksum, a length and a kind.
fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
    const BLOCK: usize = 32 * 1024;
    assert_eq!(&bytes[..4], b":W&B");
    let (mut at, mut records, mut open) = (7, Vec::new(), None::<Vec<u8>>);
    while at < bytes.len() {
        if BLOCK - at % BLOCK < 7 {
            at += BLOCK - at % BLOCK;
            continue;
        }
        let length = usize::from(u16::from_le_bytes([bytes[at + 4], bytes[at + 5]]));
        let (kind, end) = (bytes[at + 6], at + 7 + length);
        let checksum = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(crc32fast::hash(&bytes[at + 6..end]), checksum, "a chunk at byte {at}");
        let mut record = open.take().unwrap_or_default();
        record.extend_from_slice(&bytes[at + 7..end]);
        if matches!(kind, 1 | 4) {
            records.push(record)
        } else {
            open = Some(record)
        }
        at = end;
    }
    assert_eq!(open, None, "the log ends within a record");
    records
}
