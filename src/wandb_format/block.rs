//! The framing of a `.wandb` log: its header, its blocks and their chunks.
//!
//! Promises that what is framed here is read by every W&B client, and that a chunk is taken for whole only when its
//! checksum says so. Does not know what a record holds, and touches no file.
//!
//! ```text
//! file    header · block · block …             blocks are aligned to offset 0; the header is part of the first
//! header  ":W&B" · uint16 0xBEE1 · uint8 0     little-endian
//! block   32768 bytes of chunks; fewer than 7 bytes at its end are zeros
//! chunk   uint32 crc · uint16 length · uint8 kind · byte payload[length]
//! crc     CRC-32 (IEEE, as in zlib; not masked) of kind and payload
//! ```

/// How long a block is.
pub(crate) const BLOCK: u64 = 32 * 1024;

/// How long the head of a chunk is.
pub(crate) const CHUNK_HEAD: usize = 7;

/// What every log begins with.
pub(crate) const LOG_HEADER: [u8; 7] = [b':', b'W', b'&', b'B', 0xE1, 0xBE, 0];

/// A log that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The operating system refused. Whether trying again helps is in the error's kind.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file holds nothing, or not even its header yet: try again later, its writer may be about to begin.
    #[error("not a W&B log yet: it ends at byte {length}, within its header")]
    NoHeader {
        /// How long the file is.
        length: u64,
    },
    /// The file is something else, or of a version that nobody has seen: leave it alone.
    #[error("not a W&B log: it begins with {found:02x?}, not with {LOG_HEADER:02x?}")]
    WrongHeader {
        /// What stands where the header should.
        found: [u8; 7],
    },
    /// The file is not the one that the position was taken from: decide anew what to do with the run.
    #[error("the log is {length} bytes long, but was at least {position} bytes long before")]
    Shorter {
        /// How long the file is.
        length: u64,
        /// How long it must be.
        position: u64,
    },
}

/// Checks the first bytes of a log; fewer than seven when the file is shorter than that.
pub(crate) fn check_header(first: &[u8]) -> Result<(), LogError> {
    let mut found = [0; LOG_HEADER.len()];
    let length = first.len().min(found.len());
    found[..length].copy_from_slice(&first[..length]);
    if first.get(..LOG_HEADER.len()) == Some(&LOG_HEADER) {
        Ok(())
    } else if length < LOG_HEADER.len() && LOG_HEADER.starts_with(&first[..length]) {
        Err(LogError::NoHeader { length: length as u64 })
    } else {
        Err(LogError::WrongHeader { found })
    }
}

/// Where a chunk belongs in its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChunkKind {
    /// The whole record.
    Full,
    /// The record's beginning.
    First,
    /// Neither its beginning nor its end.
    Middle,
    /// The record's end.
    Last,
}

impl ChunkKind {
    /// The kind of a chunk by whether it begins and ends its record.
    pub(crate) fn of(begins: bool, ends: bool) -> Self {
        match (begins, ends) {
            (true, true) => Self::Full,
            (true, false) => Self::First,
            (false, false) => Self::Middle,
            (false, true) => Self::Last,
        }
    }

    pub(crate) fn begins(self) -> bool {
        matches!(self, Self::Full | Self::First)
    }

    pub(crate) fn ends(self) -> bool {
        matches!(self, Self::Full | Self::Last)
    }

    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Full => 1,
            Self::First => 2,
            Self::Middle => 3,
            Self::Last => 4,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Full),
            2 => Some(Self::First),
            3 => Some(Self::Middle),
            4 => Some(Self::Last),
            _ => None,
        }
    }
}

/// What stands at a place of a block where a chunk should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// A whole chunk; its payload has this length and begins [`CHUNK_HEAD`] bytes on.
    Whole(ChunkKind, usize),
    /// Head or payload are cut off by the end of what is there.
    Cut,
    /// A head of zeros, as in space that was reserved and never written.
    Zero,
    /// Something that no writer makes.
    Damaged(&'static str),
}

/// Looks at the chunk at byte `at` of a block of which `block` is there.
pub(crate) fn chunk_at(block: &[u8], at: usize) -> Chunk {
    let Some((head, rest)) = block.get(at..).and_then(|rest| rest.split_first_chunk::<CHUNK_HEAD>()) else {
        return Chunk::Cut;
    };
    let [c0, c1, c2, c3, l0, l1, kind] = *head;
    if *head == [0; CHUNK_HEAD] {
        return Chunk::Zero;
    }
    let length = usize::from(u16::from_le_bytes([l0, l1]));
    if (at + CHUNK_HEAD + length) as u64 > BLOCK {
        return Chunk::Damaged("a chunk reaches beyond its block");
    }
    if rest.len() < length {
        return Chunk::Cut;
    }
    let checked = block.get(at + CHUNK_HEAD - 1..at + CHUNK_HEAD + length).unwrap_or_default();
    if crc32fast::hash(checked) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Chunk::Damaged("checksum mismatch");
    }
    ChunkKind::from_byte(kind).map_or(Chunk::Damaged("unknown kind of chunk"), |kind| Chunk::Whole(kind, length))
}

/// Where the next chunk begins when the last one ended at `end`: there, or at the next block if no head fits.
pub(crate) fn chunk_start(end: u64) -> u64 {
    let left = BLOCK - end % BLOCK;
    if left < CHUNK_HEAD as u64 { end + left } else { end }
}

/// The first block boundary behind `at`.
pub(crate) fn next_block(at: u64) -> u64 {
    (at / BLOCK + 1) * BLOCK
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_checksum_is_plain_crc32_of_kind_and_payload() {
        assert_eq!(crc32fast::hash(&[1]), 0xA505_DF1B);
        assert_eq!(crc32fast::hash(&[1, 0x08, 0x0d]), 0x48EB_4590);
        let chunk = [0x90, 0x45, 0xeb, 0x48, 2, 0, 1, 0x08, 0x0d];
        assert_eq!(chunk_at(&chunk, 0), Chunk::Whole(ChunkKind::Full, 2));
        assert_eq!(chunk_at(&chunk[..8], 0), Chunk::Cut);
        assert_eq!(chunk_at(&chunk[..6], 0), Chunk::Cut);
        assert_eq!(chunk_at(&[0; 20], 3), Chunk::Zero);
        let mut other = chunk;
        other[8] ^= 1;
        assert_eq!(chunk_at(&other, 0), Chunk::Damaged("checksum mismatch"));
        assert_eq!(chunk_at(&[1; 9], 0x8000 - 9), Chunk::Cut);
    }

    #[test]
    fn the_header_tells_a_log_that_begins_from_another_file() {
        assert!(check_header(b":W&B\xE1\xBE\x00more").is_ok());
        assert!(matches!(check_header(b""), Err(LogError::NoHeader { length: 0 })));
        assert!(matches!(check_header(b":W&B"), Err(LogError::NoHeader { length: 4 })));
        assert!(matches!(check_header(b":W&C"), Err(LogError::WrongHeader { .. })));
        assert!(matches!(check_header(b":W&B\xE1\xBE\x01"), Err(LogError::WrongHeader { .. })));
    }

    #[test]
    fn a_head_needs_seven_bytes() {
        assert_eq!(chunk_start(BLOCK - 7), BLOCK - 7);
        assert_eq!(chunk_start(BLOCK - 6), BLOCK);
        assert_eq!(chunk_start(BLOCK), BLOCK);
        assert_eq!(next_block(BLOCK), 2 * BLOCK);
    }
}
