//! Walks over the entries of a `.wandb` log, also while somebody writes it, and also when parts of it are damaged.
//!
//! Promises that every intact record is yielded once and in order, that bytes which are not part of an intact record are
//! reported unless they are the unfinished end, and that no byte at or behind the limit is looked at. What lies at the
//! end is read from the file anew at each call, so a growing log needs no reopening. Memory is bounded by the largest
//! record that is really there. Does not know what records mean.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use crate::model::LogPosition;
use crate::wandb_format::block::{
    BLOCK, CHUNK_HEAD, Chunk, LOG_HEADER, LogError, check_header, chunk_at, chunk_start, next_block,
};
use crate::wandb_format::entry::{Entry, entry_kind};

/// How much is read from the file at once, at most: whole blocks. Most logs are small, so it begins with one block.
const WINDOW: usize = 8 * BLOCK as usize;

/// Larger records are taken for damage. Protobuf itself ends at 2 GiB.
const MAX_RECORD: usize = 1 << 30;

/// An open log, positioned before an entry.
#[derive(Debug)]
pub struct LogReader<R = File> {
    source: R,
    /// Nothing at or behind this byte is read.
    limit: u64,
    /// Where the next record begins, or would.
    at: u64,
    /// Whether the bytes before `at` were reported as damaged and the search for an intact record is not over.
    recovering: bool,
    /// Where the source ended when that search reached its end: `at` may be the next block, which is not there yet.
    searched_to: u64,
    window: Vec<u8>,
    window_start: u64,
    /// How much of `window` is filled. Less than all of it: the source ended there when it was read.
    window_filled: usize,
    /// A record of several chunks, put together.
    record: Vec<u8>,
}

/// What comes next in a log.
#[derive(Debug)]
pub enum Next<'a> {
    /// An intact record.
    Entry(Entry<'a>),
    /// The log ends at a record boundary, or only zeros follow. There may be more later.
    End,
    /// The log ends within a record. It may be whole later: the next call looks at it again.
    Incomplete {
        /// Where the record begins.
        at: LogPosition,
    },
    /// These bytes are no record. The next call goes on behind them.
    Damaged {
        /// Where the damaged record begins.
        from: LogPosition,
        /// Where reading goes on: an intact record, or the end.
        to: LogPosition,
        /// What is wrong at `from`.
        why: &'static str,
    },
}

impl LogReader<File> {
    /// Opens a log at its first entry.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        Self::open_at(path, LogPosition(0))
    }

    /// Opens a log at an entry. Fails when the log is shorter than that.
    pub fn open_at(path: &Path, position: LogPosition) -> Result<Self, LogError> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let reader = Self::new(file, position)?;
        if length < position.0 {
            return Err(LogError::Shorter { length, position: position.0 });
        }
        Ok(reader)
    }
}

impl<R: Read + Seek> LogReader<R> {
    /// Reads from any source.
    pub fn new(mut source: R, position: LogPosition) -> Result<Self, LogError> {
        let mut first = Vec::new();
        source.seek(SeekFrom::Start(0))?;
        (&mut source).take(LOG_HEADER.len() as u64).read_to_end(&mut first)?;
        check_header(&first)?;
        Ok(Self {
            source,
            limit: u64::MAX,
            at: position.0.max(LOG_HEADER.len() as u64),
            recovering: false,
            searched_to: u64::MAX,
            window: Vec::new(),
            window_start: 0,
            window_filled: 0,
            record: Vec::new(),
        })
    }

    /// Takes `limit` for the end of the log from now on.
    pub fn set_limit(&mut self, limit: Option<LogPosition>) {
        self.limit = limit.map_or(u64::MAX, |limit| limit.0);
        self.forget();
    }

    /// Where the next entry begins, or would.
    pub fn position(&self) -> LogPosition {
        LogPosition(self.at.min(self.searched_to))
    }

    /// Reads on. After [`Next::End`] and [`Next::Incomplete`] it may be called again when there is more.
    #[expect(
        clippy::should_implement_trait,
        reason = "an entry borrows from the reader, which an iterator's item cannot"
    )]
    pub fn next(&mut self) -> Result<Next<'_>, LogError> {
        let found = match self.find()? {
            // Somebody may be writing there this very moment: only what is damaged twice is damaged.
            Found::Damaged { torn: true, .. } => {
                self.forget();
                self.find()?
            }
            found => found,
        };
        let (start, end, payload) = match found {
            Found::Record { start, end, payload } => (start, end, payload),
            Found::End => {
                self.forget();
                return Ok(Next::End);
            }
            Found::Incomplete { at } => {
                self.forget();
                return Ok(Next::Incomplete { at: LogPosition(at) });
            }
            Found::Damaged { from, search, why, .. } => {
                self.recovering = true;
                self.at = self.search(search)?;
                self.searched_to = self.source.seek(SeekFrom::End(0))?.min(self.limit);
                return Ok(Next::Damaged { from: LogPosition(from), to: self.position(), why });
            }
        };
        self.recovering = false;
        self.searched_to = u64::MAX;
        self.at = end;
        let bytes = match payload {
            Payload::Window(range) => self.window.get(range).unwrap_or_default(),
            Payload::Assembled => &self.record,
        };
        Ok(match entry_kind(bytes) {
            Some((number, kind)) => {
                Next::Entry(Entry { start: LogPosition(start), end: LogPosition(end), number, kind })
            }
            None => Next::Damaged {
                from: LogPosition(start),
                to: LogPosition(end),
                why: "a record that is not valid protobuf",
            },
        })
    }

    /// Finds the record at `at`.
    fn find(&mut self) -> Result<Found, LogError> {
        let mut start = chunk_start(self.at);
        let mut at = start;
        // Whether the chunk at `at` continues a record.
        let mut within = false;
        self.record.clear();
        loop {
            let in_block = (at % BLOCK) as usize;
            let chunk = chunk_at(self.block(at)?, in_block);
            let (kind, length) = match chunk {
                Chunk::Whole(kind, length) => (kind, length),
                Chunk::Cut | Chunk::Zero if self.block_with_data(at)?.is_none() => {
                    return Ok(if within { Found::Incomplete { at: start } } else { Found::End });
                }
                Chunk::Cut => return Ok(Found::Incomplete { at: start }),
                Chunk::Zero => {
                    return Ok(Found::Damaged {
                        from: start,
                        search: at,
                        torn: true,
                        why: "zeros in place of a record",
                    });
                }
                Chunk::Damaged(why) => return Ok(Found::Damaged { from: start, search: at, torn: true, why }),
            };
            let end = at + (CHUNK_HEAD + length) as u64;
            if kind.begins() == within {
                if !within && self.recovering {
                    // The rest of a record that was reported already.
                    at = chunk_start(end);
                    start = at;
                    continue;
                }
                let search = if within { at } else { chunk_start(end) };
                let why = if within { "a record without its end" } else { "a record without its beginning" };
                return Ok(Found::Damaged { from: start, search, torn: false, why });
            }
            let from = (at - self.window_start) as usize + CHUNK_HEAD;
            let range = from..from + length;
            if kind.begins() && kind.ends() {
                return Ok(Found::Record { start, end, payload: Payload::Window(range) });
            }
            if self.record.len() + length > MAX_RECORD {
                let why = "a record above 1 GiB";
                return Ok(Found::Damaged { from: start, search: chunk_start(end), torn: false, why });
            }
            self.record.extend_from_slice(self.window.get(range).unwrap_or_default());
            if kind.ends() {
                return Ok(Found::Record { start, end, payload: Payload::Assembled });
            }
            within = true;
            at = chunk_start(end);
        }
    }

    /// Where the first intact beginning of a record at or behind `at` lies; the end where there is none.
    fn search(&mut self, mut at: u64) -> Result<u64, LogError> {
        loop {
            match chunk_at(self.block(at)?, (at % BLOCK) as usize) {
                Chunk::Whole(kind, _) if kind.begins() => return Ok(at),
                Chunk::Whole(_, length) => at = chunk_start(at + (CHUNK_HEAD + length) as u64),
                Chunk::Cut => return Ok(at),
                Chunk::Zero => match self.block_with_data(at)? {
                    Some(block) => at = block.max(next_block(at)),
                    None => return Ok(at),
                },
                Chunk::Damaged(_) => at = next_block(at),
            }
        }
    }

    /// The first block that holds something else than zeros at or behind `at`.
    fn block_with_data(&mut self, mut at: u64) -> Result<Option<u64>, LogError> {
        loop {
            let block = self.block(at)?;
            let rest = block.get((at % BLOCK) as usize..).unwrap_or_default();
            // Many gigabytes may be reserved: comparing pieces takes a fraction of looking at each byte.
            static ZEROS: [u8; 4 << 10] = [0; 4 << 10];
            if !rest.chunks(ZEROS.len()).all(|piece| ZEROS.starts_with(piece)) {
                return Ok(Some(at - at % BLOCK));
            }
            if (block.len() as u64) < BLOCK {
                return Ok(None);
            }
            at = next_block(at);
        }
    }

    /// As much of the block around `at` as there is.
    fn block(&mut self, at: u64) -> Result<&[u8], LogError> {
        let start = at - at % BLOCK;
        let inside = start.checked_sub(self.window_start).is_some_and(|offset| {
            let filled = self.window_filled as u64;
            offset + BLOCK <= filled || (offset <= filled && filled > 0 && filled < self.window.len() as u64)
        });
        if !inside {
            self.fill(start)?;
        }
        let from = (start - self.window_start) as usize;
        let to = self.window_filled.min(from + BLOCK as usize);
        Ok(self.window.get(from..to).unwrap_or_default())
    }

    fn fill(&mut self, start: u64) -> Result<(), LogError> {
        if self.window.len() < WINDOW {
            self.window = vec![0; (2 * self.window.len()).max(BLOCK as usize)];
        }
        self.window_start = start;
        self.window_filled = 0;
        let room = self.window.len();
        let want = usize::try_from(self.limit.saturating_sub(start)).unwrap_or(room).min(room);
        self.source.seek(SeekFrom::Start(start))?;
        while let Some(rest) = self.window.get_mut(self.window_filled..want).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest) {
                Ok(0) => break,
                Ok(count) => self.window_filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Makes the next look at any block a look at the source.
    fn forget(&mut self) {
        self.window_filled = 0;
    }
}

enum Found {
    Record {
        start: u64,
        end: u64,
        payload: Payload,
    },
    End,
    Incomplete {
        at: u64,
    },
    Damaged {
        from: u64,
        /// Where the search for an intact record begins.
        search: u64,
        /// Whether a write that is under way can look like this.
        torn: bool,
        why: &'static str,
    },
}

enum Payload {
    Window(Range<usize>),
    Assembled,
}

#[cfg(test)]
mod tests;
