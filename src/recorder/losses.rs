//! What is lost of one file, from the first pass over it to this one.
//!
//! Damage stays in a file when nothing is new in it, and what it took is still not on the server; so it is kept with the
//! checkpoint, and every process says it again. Only what lies before the place where reading goes on after a crash is
//! kept: the rest will be met again. Pure.

use std::collections::VecDeque;
use std::path::Path;

use crate::model::{Count, SkippedReason, Skips};
use crate::recorder::reasons::reason;
use crate::tfevents::Next;

/// The losses of a source.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Before the place where reading goes on.
    kept: Skips,
    /// What this process met behind it, each with the offset of its record.
    ahead: VecDeque<(u64, Skips)>,
    /// Of an earlier process, and not said yet.
    known: Skips,
    /// Why nothing behind the end of what was read can be read, and whether an earlier process met it.
    damage: Option<(String, Met)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Met {
    Before,
    Now,
}

impl Losses {
    /// Goes on from what was saved.
    pub(super) fn new(saved: &[(SkippedReason, Count)]) -> Self {
        let of_file = |reason: &SkippedReason| *reason == SkippedReason::DamagedFile;
        let damage =
            saved.iter().find(|(reason, _)| of_file(reason)).map(|(_, count)| (count.first.clone(), Met::Before));
        let kept = saved.iter().filter(|(reason, _)| !of_file(reason)).cloned().collect();
        Self { kept, ahead: VecDeque::new(), known: saved.iter().cloned().collect(), damage }
    }

    /// Takes what is lost among the skips of the record at `at`.
    pub(super) fn add(&mut self, at: u64, skips: &Skips) {
        // A file that cannot be read now may be read next time, and damage of the rest is not behind us.
        let stays = |reason: &SkippedReason| {
            reason.is_loss() && !matches!(reason, SkippedReason::Unreadable | SkippedReason::DamagedFile)
        };
        let lost: Skips =
            skips.iter().filter(|(reason, _)| stays(reason)).map(|(r, count)| (r.clone(), count.clone())).collect();
        if !lost.is_empty() {
            match self.ahead.back_mut() {
                Some((last, more)) if *last == at => more.merge(&lost),
                _ => self.ahead.push_back((at, lost)),
            }
        }
    }

    /// Nothing can be read from here on. It is counted once, however often it is met, and only while it is there: what
    /// stands in the place of a record may be half of it.
    pub(super) fn found_damage(&mut self, next: &Next, path: &Path) {
        if self.damage.is_none()
            && let Some((_, first)) = reason(next, path, 0)
        {
            self.damage = Some((first, Met::Now));
        }
    }

    /// What this process met that keeps the rest from being read, as it is now.
    pub(super) fn new_damage(&self) -> Option<&str> {
        self.damage.as_ref().filter(|(_, met)| *met == Met::Now).map(|(first, _)| first.as_str())
    }

    /// Something behind the damage was read after all: the file was mended.
    pub(super) fn passed_damage(&mut self) {
        if self.damage.take().is_some() {
            self.known =
                self.known.iter().filter(|(reason, _)| **reason != SkippedReason::DamagedFile).map(owned).collect();
        }
    }

    /// What an earlier process met, once.
    pub(super) fn take_known(&mut self) -> Skips {
        std::mem::take(&mut self.known)
    }

    /// What was lost before was told, but for damage that ends a file: that is told when nothing more is read.
    pub(super) fn forget_known(&mut self) {
        let of_file = |(reason, _): &(&SkippedReason, &Count)| **reason == SkippedReason::DamagedFile;
        self.known = self.known.iter().filter(of_file).map(owned).collect();
    }

    /// What is lost before the place where reading goes on; `at_end` says that it is the end of what was read.
    pub(super) fn before(&mut self, resume_at: Option<u64>, at_end: bool) -> Vec<(SkippedReason, Count)> {
        while let Some((at, _)) = self.ahead.front()
            && resume_at.is_some_and(|resume_at| *at < resume_at)
            && let Some((_, skips)) = self.ahead.pop_front()
        {
            self.kept.merge(&skips);
        }
        let mut lost: Vec<_> = self.kept.iter().map(owned).collect();
        if let (Some((first, _)), true) = (&self.damage, at_end) {
            lost.push((SkippedReason::DamagedFile, Count { count: 1, first: first.clone() }));
        }
        lost
    }
}

fn owned((reason, count): (&SkippedReason, &Count)) -> (SkippedReason, Count) {
    (reason.clone(), count.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skips(reason: SkippedReason) -> Skips {
        [(reason, Count { count: 1, first: "there".to_owned() })].into_iter().collect()
    }

    fn shown(lost: &[(SkippedReason, Count)]) -> Vec<(String, u64)> {
        lost.iter().map(|(reason, count)| (reason.to_string(), count.count)).collect()
    }

    #[test]
    fn only_what_lies_behind_is_kept() {
        let mut losses = Losses::default();
        losses.add(10, &skips(SkippedReason::DamagedRecord));
        losses.add(20, &skips(SkippedReason::DamagedRecord));
        losses.add(20, &skips(SkippedReason::IncompleteTail));
        assert_eq!(shown(&losses.before(Some(20), false)), [("damaged record".to_owned(), 1)]);
        assert_eq!(shown(&losses.before(None, false)), [("damaged record".to_owned(), 1)]);
        let saved = losses.before(Some(30), true);
        assert_eq!(shown(&saved), [("damaged record".to_owned(), 2)]);
        let mut later = Losses::new(&saved);
        assert_eq!(later.take_known().iter().map(|(_, count)| count.count).sum::<u64>(), 2);
        assert!(later.take_known().is_empty());
        assert_eq!(later.before(Some(30), true), saved);
    }

    #[test]
    fn a_mended_file_is_not_damaged_any_more() {
        let damage = (SkippedReason::DamagedFile, Count { count: 1, first: "there".to_owned() });
        let mut losses = Losses::new(std::slice::from_ref(&damage));
        assert_eq!(losses.before(Some(1), true), std::slice::from_ref(&damage));
        losses.passed_damage();
        assert!(losses.take_known().is_empty() && losses.before(Some(1), true).is_empty());
    }
}
