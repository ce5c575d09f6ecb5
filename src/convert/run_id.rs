//! Stable run ids: the same logs have the same id whatever path or working directory named them.

use sha2::{Digest, Sha256};

use crate::model::RunId;

/// Length of an id. 36^10 ids: among 20,000 runs of a project two collide about once in 20 million projects.
const LENGTH: usize = 10;

/// What the first event file of an experiment looked like when its writer made it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The file's name, without its directory, as bytes.
    pub file_name: Vec<u8>,
    /// A hash of its first whole record.
    pub first_record: Fingerprint,
}

/// A hash of a source's first whole record: tells a replaced file from one that grew.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The fingerprint of a record's payload.
    pub fn of(payload: &[u8]) -> Self {
        let digest = Sha256::digest(payload);
        Self(digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }
}

/// The id of a run.
///
/// `generation` makes a fresh run beside the old one when it is not 0. `own_names` tells copies apart: empty, or the
/// last names of the experiment's path, as many as it takes.
pub fn derive(origin: &Origin, generation: u32, own_names: &[String]) -> RunId {
    let mut hash = Sha256::new();
    // Lengths keep the parts apart, so no two different inputs run together.
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(&origin.file_name);
    part(origin.first_record.0.as_bytes());
    if generation > 0 {
        part(&generation.to_le_bytes());
    }
    for name in own_names {
        part(name.as_bytes());
    }
    let digest = hash.finalize();
    let mut number = digest.iter().take(16).fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    let mut id = String::with_capacity(LENGTH);
    for _ in 0..LENGTH {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        id.push(char::from(DIGITS[(number % 36) as usize]));
        number /= 36;
    }
    #[expect(clippy::expect_used, reason = "ten letters and digits are always an id")]
    RunId::new(id).expect("letters and digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(name: &str, record: &[u8]) -> Origin {
        Origin { file_name: name.as_bytes().to_vec(), first_record: Fingerprint::of(record) }
    }

    #[test]
    fn ids_are_short_and_stable() {
        // A changed id would make every run that anyone has imported a second time: never let this value change.
        assert_eq!(derive(&origin("events.out.tfevents.1.host", b"x"), 0, &[]).as_str(), "7qb1fx05pc");
    }

    #[test]
    fn everything_counts() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let ids = [
            derive(&origin("a", b"x"), 0, &[]),
            derive(&origin("b", b"x"), 0, &[]),
            derive(&origin("a", b"y"), 0, &[]),
            derive(&origin("a", b"x"), 1, &[]),
            derive(&origin("a", b"x"), 0, &names(&["ab", "c"])),
            derive(&origin("a", b"x"), 0, &names(&["a", "bc"])),
        ];
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }
}
