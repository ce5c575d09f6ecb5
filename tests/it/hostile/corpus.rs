//! Every file of `fuzz/corpus/` goes through the function that the fuzz target of its folder calls, and so do mutations of
//! it: bits turned over, ends cut off, pieces put elsewhere.
//!
//! The mutations follow from a seed, which is printed; `WANDB_BRIDGE_FUZZ_ROUNDS` makes more of them.

#[path = "../../../fuzz/src/lib.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, dead_code, unreachable_pub, reason = "tests")]
mod entries;

use std::fs;
use std::path::Path;

use entries::TARGETS;

/// Mutations of each file, unless asked for more.
const ROUNDS: u64 = 30;

/// A generator of numbers that are the same for the same seed (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap()
    }
}

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

fn mutated(file: &[u8], others: &[(String, Vec<u8>)], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = file.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len());
        match numbers.below(6) {
            0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << numbers.below(8),
            2 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][numbers.below(5)],
            3 => bytes.truncate(at),
            4 => {
                // A piece of another file, or of this one.
                let other = &others[numbers.below(others.len())].1;
                let from = numbers.below(other.len());
                let to = from + numbers.below((other.len() - from).min(64) + 1);
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            _ => drop(bytes.drain(at..(at + numbers.below(16)).min(bytes.len()))),
        }
    }
    bytes
}

/// Eight tests and not one: so that they run side by side, and a failure names its target.
fn replay(target: &str) {
    let (_, entry) = TARGETS.iter().find(|(name, _)| *name == target).unwrap();
    let rounds = std::env::var("WANDB_BRIDGE_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let files = corpus(target);
    assert!(!files.is_empty(), "no corpus for {target}");
    for (name, bytes) in &files {
        eprintln!("{target}/{name}");
        entry(bytes);
        for round in 1..=rounds {
            let seed = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ bytes.len() as u64;
            eprintln!("{target}/{name}, seed {seed}");
            entry(&mutated(bytes, &files, &mut Numbers(seed | 1)));
        }
    }
}

macro_rules! targets {
    ($($target:ident)*) => {
        $(#[test] fn $target() { replay(stringify!($target)); })*

        #[test]
        fn every_target_is_replayed() {
            assert_eq!(TARGETS.map(|(name, _)| name), [$(stringify!($target)),*]);
        }
    };
}

targets!(event_file compressed event wandb_log wandb_record state config json);

/// Each target is a program of its own for the fuzzer, in `fuzz/fuzz_targets/`.
#[test]
fn every_target_is_a_program() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        let program = fs::read_to_string(folder.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains("fuzz_target!") && manifest.contains(&format!("fuzz_targets/{name}.rs")), "{name}");
    }
}
