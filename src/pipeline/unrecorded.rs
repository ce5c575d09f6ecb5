//! What stands in event files and in no log: read on from where the recording stopped, and written nowhere.

use std::path::Path;
use std::sync::Arc;

use crate::convert::filters::Filter;
use crate::model::Skips;
use crate::pipeline::recording::Planned;
use crate::recorder::{Described, End, RecordError, RecordOptions, Recorder};

/// What an import would record now.
#[derive(Debug, Default)]
pub struct Unrecorded {
    /// Rows.
    pub rows: u64,
    /// Values, also those that would make no rows.
    pub values: u64,
    /// What of the files cannot be carried, whenever they were read.
    pub skips: Skips,
}

impl Unrecorded {
    /// Reads what is new of a run. What was recorded is gone on with by the options that it was recorded with.
    pub fn of(planned: &Planned<'_>, options: &RecordOptions) -> Result<Self, RecordError> {
        let mut options = RecordOptions { dry_run: true, ..options.clone() };
        let mut directory = Path::new("").join(format!("offline-run-{}", planned.id));
        if let Some((recorded, checkpoint)) = &planned.recorded {
            options.shape = checkpoint.shape.clone();
            options.filter = Arc::new(Filter::new(&options.shape.filters, &jiff::ZonedDateTime::now()));
            directory.clone_from(recorded);
        }
        let mut recorder = Recorder::open(&directory, &planned.id, planned.plan, &Described::default(), &options)?;
        let (pass, read) = recorder.pass(&planned.plan.sources, End::Exit(0), |_| {}, |_| true);
        read?;
        let mut skips = pass.skips;
        skips.merge(&pass.known);
        skips.merge(&recorder.unfinished(&planned.plan.sources, true));
        Ok(Self { rows: pass.rows, values: pass.kinds.sum().read, skips })
    }
}
