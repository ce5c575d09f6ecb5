//! Crashes at any moment, at the level of files: what is on disk afterwards is a checkpoint that was saved, and a log that
//! is at least as long as that says, with anything behind. A recorder that was never interrupted is what to compare with.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;

use super::write_scalar;
use crate::checkpoint::Shape;
use crate::recorder::*;
use crate::state_file::place::StateHome;
use crate::survey::Survey;

/// Something that happens, to event files or to whoever records them.
#[derive(Debug, Clone)]
enum Step {
    /// A file grows by a value of each of the tags, and maybe by half of another record.
    Append { file: usize, tags: u8, torn: bool },
    /// What is new is recorded.
    Pass { close: bool },
    /// The process is gone, and another one starts. The log has this behind what counts.
    Crash { tail: Vec<u8> },
    /// The same in the middle of the last commit: the log is durable, and the checkpoint is still the one before.
    CrashBeforeCheckpoint { cut: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_usize, 1..8_u8, any::<bool>()).prop_map(|(file, tags, torn)| Step::Append { file, tags, torn }),
        3 => any::<bool>().prop_map(|close| Step::Pass { close }),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|tail| Step::Crash { tail }),
        2 => (0..400_usize).prop_map(|cut| Step::CrashBeforeCheckpoint { cut }),
    ]
}

/// Event files that grow, and a run directory beside them.
struct Place {
    directory: tempfile::TempDir,
    clock: i32,
    files: [Vec<u8>; 3],
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("logs")).unwrap();
        let mut place = Self { directory, clock: 0, files: Default::default() };
        place.append(0, 1, false);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn append(&mut self, file: usize, tags: u8, torn: bool) {
        for tag in 0..3 {
            if tags & (1 << tag) == 0 {
                continue;
            }
            self.clock += 1;
            let (wall_time, step) = (1.7e9 + f64::from(self.clock), i64::from(self.clock / 4));
            write_scalar(&mut self.files[file], &format!("tag{tag}"), wall_time, step, self.clock as f32);
        }
        let content = &self.files[file];
        // Only what is behind the first record may be incomplete: before that, there is no run.
        let there = if torn && content.len() > 100 { content.len() - 5 } else { content.len() };
        let name = format!("logs/events.out.tfevents.000000000{file}.host");
        fs::write(self.path(&name), &content[..there]).unwrap();
    }

    fn plan(&self) -> crate::survey::PlannedRun {
        let mut found = Survey::new(&Shape::default(), 0).look(&[self.path("logs")]).unwrap();
        assert_eq!(found.runs.len(), 1);
        found.runs.remove(0)
    }

    fn open(&self) -> Recorder {
        let options = RecordOptions {
            max_record: u64::MAX,
            shape: Shape::default(),
            filter: Arc::default(),
            summaries: Vec::new(),
            generation: 0,
            state: StateHome::default(),
            save_events: false,
            dry_run: false,
        };
        // Not the id that the path decides about: the two places must make the same log.
        let id = crate::model::RunId::new("same").unwrap();
        Recorder::open(&self.path("run"), &id, &self.plan(), &Described::default(), &options).unwrap()
    }

    fn pass(&self, recorder: &mut Recorder, end: End) {
        recorder.pass(&self.plan().sources, end, |_| {}, |_| true).1.unwrap();
    }

    fn log(&self) -> PathBuf {
        self.path("run/run-same.wandb")
    }

    fn checkpoint(&self) -> PathBuf {
        StateHome::default().of(&self.path("run")).checkpoint()
    }
}

fn end(close: bool) -> End {
    if close { End::CloseRow } else { End::KeepRow }
}

fn append(path: &Path, bytes: &[u8]) {
    let log = fs::read(path).unwrap();
    fs::write(path, [&*log, bytes].concat()).unwrap();
}

/// Goes through the steps, and returns the log, with the steps that counted in the end.
fn interrupted(steps: &[Step]) -> (Vec<u8>, Vec<Step>) {
    let mut place = Place::new();
    let mut recorder = place.open();
    let mut counted: Vec<Step> = Vec::new();
    // The checkpoint before the last pass, and where that pass stands in what counted.
    let mut before: Option<(Option<Vec<u8>>, usize)> = None;
    for step in steps {
        match step {
            Step::Append { file, tags, torn } => {
                place.append(*file, *tags, *torn);
                counted.push(step.clone());
            }
            Step::Pass { close } => {
                before = Some((fs::read(place.checkpoint()).ok(), counted.len()));
                place.pass(&mut recorder, end(*close));
                counted.push(step.clone());
            }
            Step::Crash { tail } => {
                drop(recorder);
                // Without a checkpoint nothing of the log counts anyway.
                append(&place.log(), tail);
                recorder = place.open();
                before = None;
            }
            Step::CrashBeforeCheckpoint { cut } => {
                drop(recorder);
                if let Some((checkpoint, index)) = before.take() {
                    let log = fs::read(place.log()).unwrap();
                    let mut counts = 0;
                    match checkpoint {
                        Some(bytes) => {
                            fs::write(place.checkpoint(), bytes).unwrap();
                            let saved = Checkpoint::load(&StateHome::default().of(&place.path("run"))).unwrap();
                            counts = saved.unwrap().position.0 as usize;
                        }
                        None => fs::remove_file(place.checkpoint()).unwrap_or_default(),
                    }
                    // The log may have been made durable in part.
                    fs::write(place.log(), &log[..log.len().saturating_sub(*cut).max(counts)]).unwrap();
                    counted.remove(index);
                }
                recorder = place.open();
            }
        }
    }
    place.pass(&mut recorder, End::Exit(0));
    (fs::read(place.log()).unwrap(), counted)
}

fn uninterrupted(steps: &[Step]) -> Vec<u8> {
    let mut place = Place::new();
    let mut recorder = place.open();
    for step in steps {
        match step {
            Step::Append { file, tags, torn } => place.append(*file, *tags, *torn),
            Step::Pass { close } => place.pass(&mut recorder, end(*close)),
            Step::Crash { .. } | Step::CrashBeforeCheckpoint { .. } => {}
        }
    }
    place.pass(&mut recorder, End::Exit(0));
    fs::read(place.log()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_recorder_that_crashed_makes_the_log_of_one_that_did_not(steps in prop::collection::vec(step(), 1..24)) {
        let (log, counted) = interrupted(&steps);
        prop_assert!(log == uninterrupted(&counted), "{counted:?}");
    }
}

#[test]
fn a_recorder_that_failed_does_no_more_and_nothing_is_lost() {
    let mut place = Place::new();
    let mut recorder = place.open();
    place.pass(&mut recorder, End::KeepRow);
    place.append(0, 7, false);
    // The checkpoint cannot be written.
    let in_the_way = place.checkpoint().with_extension("json.tmp");
    fs::create_dir(&in_the_way).unwrap();
    let sources = place.plan().sources;
    let (_, failed) = recorder.pass(&sources, End::CloseRow, |_| {}, |_| true);
    assert!(matches!(failed, Err(RecordError::State(_))), "{failed:?}");
    fs::remove_dir(&in_the_way).unwrap();
    let (_, again) = recorder.pass(&sources, End::Exit(0), |_| panic!("a commit"), |_| true);
    assert!(matches!(again, Err(RecordError::Broken)), "{again:?}");
    assert!(matches!(recorder.preempt(|_| panic!("a commit")), Err(RecordError::Broken)));
    drop(recorder);
    place.pass(&mut place.open(), End::Exit(0));

    let mut other = Place::new();
    let mut recorder = other.open();
    other.pass(&mut recorder, End::KeepRow);
    other.append(0, 7, false);
    other.pass(&mut recorder, End::Exit(0));
    assert_eq!(fs::read(place.log()).unwrap(), fs::read(other.log()).unwrap());
}
