//! What a pass appends, and what makes it count: rows, files and config into the log, the log durable, the checkpoint.

use std::path::Path;

use crate::checkpoint::Ending;
use crate::convert::config;
use crate::convert::kinds::SessionEnd;
use crate::convert::rows::SourceRow;
use crate::model::{LogPosition, RunUpdate};
use crate::recorder::{RecordError, Recorder, locked};
use crate::sink::Sink;
use crate::state_file::durable::Durability;
use crate::state_file::sync_directory;
use crate::wandb_format::unmark_synced;

impl Recorder {
    /// Writes the end of the run. One that has ended, and to which nothing came, keeps the end that it has.
    pub(super) fn exit(&mut self, code: i32) -> Result<(), RecordError> {
        if self.checkpoint.ending.is_some() {
            return Ok(());
        }
        self.reopen()?;
        self.commit_rows()?;
        let (before_exit, exit_num) = self.sink.position();
        self.write(&RunUpdate::Exit(self.converter.exit(code)))?;
        self.checkpoint.ending = Some(Ending { before_exit, exit_num, code });
        Ok(())
    }

    /// Leaves the run open, and says that it will go on; not one that has ended.
    pub fn preempt(&mut self, mut committed: impl FnMut(LogPosition)) -> Result<(), RecordError> {
        self.unless_broken(|this| {
            if this.checkpoint.ending.is_some() {
                return Ok(());
            }
            this.reopen()?;
            this.write(&RunUpdate::Preempting)?;
            this.commit(&mut committed)
        })
    }

    /// Does something after which, if it fails, nothing more may be done: rows may be in memory that are not in the log, or
    /// in the log and not in the checkpoint. The checkpoint on disk is right all the same, so that whoever opens the run
    /// again goes on from there.
    pub(super) fn unless_broken<T>(
        &mut self,
        what: impl FnOnce(&mut Self) -> Result<T, RecordError>,
    ) -> Result<T, RecordError> {
        if self.broken {
            return Err(RecordError::Broken);
        }
        let result = what(self);
        self.broken = result.is_err();
        result
    }

    /// Makes everything so far durable and published, if there is anything new.
    pub(super) fn commit(&mut self, committed: &mut impl FnMut(LogPosition)) -> Result<(), RecordError> {
        self.write_beside()?;
        self.commit_rows()?;
        if !self.dirty {
            return Ok(());
        }
        if self.dry_run {
            locked(&self.beside).files.sync()?;
            self.dirty = false;
            return Ok(());
        }
        self.make_durable()?;
        if !self.no_log {
            (self.checkpoint.position, self.checkpoint.next_num) = self.sink.position();
        }
        self.checkpoint.state.clone_from(self.converter.state());
        for (directory, tags) in &self.tags {
            let tags = locked(tags);
            if !tags.is_empty() {
                self.checkpoint.tags.insert(directory.clone(), tags.clone());
            }
        }
        self.checkpoint.save_by(&self.place, &self.durability)?;
        if std::mem::take(&mut self.uncounted) {
            // Beside a checkpoint it says nothing.
            let _ = std::fs::remove_file(self.place.uncounted());
        }
        self.dirty = false;
        committed(self.checkpoint.position);
        Ok(())
    }

    /// Makes all that the next checkpoint speaks of durable: files, the log, and where they are found.
    fn make_durable(&mut self) -> Result<(), RecordError> {
        let failed = |source| RecordError::Log { path: self.log.clone(), source };
        let at = |directory: &Path, source| RecordError::Io { path: directory.to_owned(), source };
        let new = std::mem::take(&mut self.new);
        if let Durability::Together(together) = &self.durability {
            // Written, all of it, before the one wait.
            self.sink.flush().map_err(failed)?;
            together.wait().map_err(|source| at(&self.directory, source))?;
            locked(&self.beside).files.are_durable();
            return Ok(());
        }
        locked(&self.beside).files.sync()?;
        if !self.no_log {
            self.sink.sync().map_err(failed)?;
        }
        if new {
            // What the checkpoint speaks of must be found after a loss of power: the log, and the directory it is in.
            for directory in [Some(self.directory.as_path()), self.directory.parent()].into_iter().flatten() {
                sync_directory(directory).map_err(|source| at(directory, source))?;
            }
        }
        Ok(())
    }

    pub(super) fn commit_rows(&mut self) -> Result<(), RecordError> {
        match self.converter.commit() {
            Some(summary) => self.write(&summary),
            None => Ok(()),
        }
    }

    /// Names new files in the log, so that they are uploaded, and writes config that this process has not written yet.
    pub(super) fn write_beside(&mut self) -> Result<(), RecordError> {
        let (files, config) = {
            let mut beside = locked(&self.beside);
            (beside.files.take_unnamed(), std::mem::take(&mut beside.config))
        };
        if !files.is_empty() {
            self.reopen()?;
            self.write(&RunUpdate::Files(files))?;
        }
        let mut new = Vec::new();
        for (path, mut value) in config {
            self.masked.extend(config::mask_value(&path, &mut value));
            if self.config.get(&path) == Some(&value) {
                continue;
            }
            self.config.insert(path.clone(), value.clone());
            // Files and flags are nearer than events.
            if config::speaks_of(&self.checkpoint.config, &path) {
                let left = config::leaves(&path, &value);
                new.extend(left.into_iter().filter(|(path, _)| !config::speaks_of(&self.checkpoint.config, path)));
            } else {
                new.push((path, value));
            }
        }
        if !new.is_empty() {
            self.reopen()?;
            self.write(&RunUpdate::Config(new))?;
        }
        Ok(())
    }

    /// The exit code of a run that ended by itself: failed only where its training session says so. That a session
    /// says it finished does not end a run, because some writers say so when they begin.
    pub(super) fn session_code(&self) -> i32 {
        i32::from(self.checkpoint.session == Some(SessionEnd::Failed))
    }

    pub(super) fn write_row(&mut self, row: SourceRow) -> Result<(), RecordError> {
        self.write_beside()?;
        self.reopen()?;
        self.dirty = true;
        let mut failed = None;
        let sink = &mut self.sink;
        self.converter.row(row, |update| {
            if failed.is_none() {
                failed = sink.write(&update).err();
            }
        });
        match failed {
            Some(source) => Err(RecordError::Log { path: self.log.clone(), source }),
            None => Ok(()),
        }
    }

    pub(super) fn write(&mut self, update: &RunUpdate) -> Result<(), RecordError> {
        self.dirty = true;
        self.sink.write(update).map_err(|source| RecordError::Log { path: self.log.clone(), source })
    }

    /// Makes the log ready for something new: it is not whole on any server any more, and its exit record, which is
    /// only ever the last record of a log, is cut off. The checkpoint goes before the log, so that a crash in between leaves
    /// a log that is cut at the next start; and before the mark, so that a process that sets the mark just now sees in the
    /// checkpoint that it is too late. Nothing is changed here before it is saved.
    pub(super) fn reopen(&mut self) -> Result<(), RecordError> {
        let failed = |source| RecordError::Log { path: self.log.clone(), source };
        if self.dry_run {
            if let Some(ending) = self.checkpoint.ending.take() {
                self.sink = Sink::nowhere(ending.before_exit, ending.exit_num).map_err(failed)?;
            }
            return Ok(());
        }
        if std::mem::take(&mut self.no_log) {
            return self.begin_next_log();
        }
        let ending = self.checkpoint.ending;
        if let Some(ending) = ending {
            let mut cut = self.checkpoint.clone();
            (cut.ending, cut.position, cut.next_num) = (None, ending.before_exit, ending.exit_num);
            cut.save(&self.place)?;
            self.checkpoint = cut;
        }
        if std::mem::take(&mut self.marked) {
            unmark_synced(&self.log)
                .and_then(|()| sync_directory(&self.directory))
                .map_err(|source| RecordError::Io { path: self.log.clone(), source })?;
        }
        if let Some(ending) = ending {
            self.sink = Sink::open_at(&self.log, ending.before_exit, ending.exit_num).map_err(failed)?;
        }
        Ok(())
    }
}
