//! Decompression of a stream that may still grow: gzip (also several members after each other) and zlib.
//!
//! Takes compressed bytes in any pieces and never produces more than it was asked for, so neither a cut stream nor a
//! decompression bomb is special. Checksums are checked. Knows no files and no records.

use bytes::BytesMut;
use flate2::{Decompress, FlushDecompress, Status};

/// What the first bytes of a file say about all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// It is not compressed.
    None,
    /// One gzip member, or several after each other.
    Gzip,
    /// A zlib stream.
    Zlib,
}

impl Compression {
    /// The word for it; none for a plain file.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Zlib => Some("zlib"),
        }
    }
}

/// The compressed data makes no sense; nothing behind it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damaged;

/// The state of one compressed stream.
pub(crate) struct Inflate {
    stage: Stage,
    body: Decompress,
    compression: Compression,
    crc: crc32fast::Hasher,
    /// Length of the member's data, as its trailer counts: modulo 2^32.
    size: u32,
}

/// Where in the stream the next byte belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Header(Header),
    Body,
    /// CRC and size: so many bytes are read.
    Trailer {
        read: u8,
        bytes: [u8; 8],
    },
    /// Behind a whole gzip member: another one, zeros, or nothing.
    Between,
    /// Behind a whole zlib stream.
    Finished,
    Damaged,
}

/// Where in a gzip header the next byte belongs. The parts after the first follow as `flags` say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    flags: u8,
    part: Part,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Fixed { read: u8 },
    ExtraLength { low: Option<u8> },
    Extra { left: u16 },
    Name,
    Comment,
    Crc { left: u8 },
}

const FLAG_CRC: u8 = 2;
const FLAG_EXTRA: u8 = 4;
const FLAG_NAME: u8 = 8;
const FLAG_COMMENT: u8 = 16;
const FLAGS_RESERVED: u8 = 0xe0;

impl Inflate {
    pub(crate) fn compression(&self) -> Compression {
        self.compression
    }

    pub(crate) fn new(compression: Compression) -> Self {
        let gzip = compression == Compression::Gzip;
        Self {
            stage: if gzip { Stage::Between } else { Stage::Body },
            body: Decompress::new(!gzip),
            compression,
            crc: crc32fast::Hasher::new(),
            size: 0,
        }
    }

    /// Whether the stream could end here.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.stage, Stage::Between | Stage::Finished)
    }

    /// Decompresses from `input` into `out`, at most `at_most` bytes more, and returns how much of `input` was used.
    ///
    /// When all of `input` was used and nothing came out, more input is needed. Data that came before damage is
    /// delivered first; the error is given by every later call.
    pub(crate) fn run(&mut self, input: &[u8], out: &mut BytesMut, at_most: usize) -> Result<usize, Damaged> {
        let mut used = 0;
        let start = out.len();
        let limit = start.saturating_add(at_most);
        loop {
            let rest = input.get(used..).unwrap_or_default();
            match self.stage {
                Stage::Damaged if out.len() > start => return Ok(used),
                Stage::Damaged => return Err(Damaged),
                Stage::Body => {
                    if out.len() >= limit {
                        return Ok(used);
                    }
                    let before = out.len();
                    let taken = self.inflate(rest, out, limit);
                    used += taken;
                    if self.stage == Stage::Body && taken == 0 && out.len() == before {
                        return Ok(used);
                    }
                }
                stage => {
                    let Some(&byte) = rest.first() else { return Ok(used) };
                    used += 1;
                    self.stage = self.step(stage, byte);
                }
            }
        }
    }

    /// One call of the decompressor. Returns how much input it used.
    fn inflate(&mut self, input: &[u8], out: &mut BytesMut, limit: usize) -> usize {
        let start = out.len();
        let (in_before, out_before) = (self.body.total_in(), self.body.total_out());
        out.resize(limit, 0);
        let result = match out.get_mut(start..) {
            Some(room) => self.body.decompress(input, room, FlushDecompress::None),
            None => Ok(Status::BufError),
        };
        let produced = usize::try_from(self.body.total_out() - out_before).unwrap_or(0);
        out.truncate(start.saturating_add(produced));
        if self.compression == Compression::Gzip {
            let data = out.get(start..).unwrap_or_default();
            self.crc.update(data);
            #[expect(clippy::cast_possible_truncation, reason = "the trailer counts modulo 2^32")]
            let length = data.len() as u32;
            self.size = self.size.wrapping_add(length);
        }
        match result {
            Ok(Status::StreamEnd) if self.compression == Compression::Gzip => {
                self.stage = Stage::Trailer { read: 0, bytes: [0; 8] };
            }
            Ok(Status::StreamEnd) => self.stage = Stage::Finished,
            Ok(Status::Ok | Status::BufError) => {}
            Err(_) => self.stage = Stage::Damaged,
        }
        usize::try_from(self.body.total_in() - in_before).unwrap_or(0)
    }

    /// Takes one byte outside the compressed data.
    fn step(&mut self, stage: Stage, byte: u8) -> Stage {
        match stage {
            Stage::Header(header) => self.header(header, byte),
            Stage::Trailer { read, mut bytes } => {
                if let Some(place) = bytes.get_mut(usize::from(read)) {
                    *place = byte;
                }
                if read < 7 {
                    return Stage::Trailer { read: read + 1, bytes };
                }
                let expected = (u64::from(self.size) << 32) | u64::from(self.crc.clone().finalize());
                if u64::from_le_bytes(bytes) == expected { Stage::Between } else { Stage::Damaged }
            }
            // Padding of zeros is left by tapes and by tools that round sizes up.
            Stage::Between if byte == 0 => Stage::Between,
            Stage::Between if byte == 0x1f => Stage::Header(Header { flags: 0, part: Part::Fixed { read: 1 } }),
            Stage::Between | Stage::Finished | Stage::Body | Stage::Damaged => Stage::Damaged,
        }
    }

    fn header(&mut self, Header { mut flags, part }: Header, byte: u8) -> Stage {
        let next = |part| Stage::Header(Header { flags, part });
        match part {
            Part::Fixed { read: 1 } if byte != 0x8b => return Stage::Damaged,
            Part::Fixed { read: 2 } if byte != 8 => return Stage::Damaged,
            Part::Fixed { read: 3 } if byte & FLAGS_RESERVED != 0 => return Stage::Damaged,
            Part::Fixed { read: 3 } => {
                return Stage::Header(Header { flags: byte, part: Part::Fixed { read: 4 } });
            }
            Part::Fixed { read } if read < 9 => return next(Part::Fixed { read: read + 1 }),
            Part::Fixed { .. } => {}
            Part::ExtraLength { low: None } => return next(Part::ExtraLength { low: Some(byte) }),
            Part::ExtraLength { low: Some(low) } => {
                flags &= !FLAG_EXTRA;
                let left = u16::from_le_bytes([low, byte]);
                if left > 0 {
                    return Stage::Header(Header { flags, part: Part::Extra { left } });
                }
            }
            Part::Extra { left } if left > 1 => return next(Part::Extra { left: left - 1 }),
            Part::Name | Part::Comment if byte != 0 => return next(part),
            Part::Extra { .. } => {}
            Part::Name => flags &= !FLAG_NAME,
            Part::Comment => flags &= !FLAG_COMMENT,
            Part::Crc { left } if left > 1 => return next(Part::Crc { left: left - 1 }),
            Part::Crc { .. } => flags &= !FLAG_CRC,
        }
        let part = match flags {
            flags if flags & FLAG_EXTRA != 0 => Part::ExtraLength { low: None },
            flags if flags & FLAG_NAME != 0 => Part::Name,
            flags if flags & FLAG_COMMENT != 0 => Part::Comment,
            flags if flags & FLAG_CRC != 0 => Part::Crc { left: 2 },
            _ => {
                self.body = Decompress::new(false);
                self.crc = crc32fast::Hasher::new();
                self.size = 0;
                return Stage::Body;
            }
        };
        Stage::Header(Header { flags, part })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::io::Write;

    use flate2::write::{GzEncoder, ZlibEncoder};
    use flate2::{Compression as Level, GzBuilder};
    use proptest::prelude::*;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(data: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Level::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    /// Feeds the input in pieces and asks for the output in pieces.
    fn inflate(compression: Compression, input: &[u8], piece: usize, ask: usize) -> (Result<bool, Damaged>, Vec<u8>) {
        let mut inflate = Inflate::new(compression);
        let mut out = BytesMut::new();
        for mut piece in input.chunks(piece) {
            loop {
                let before = out.len();
                match inflate.run(piece, &mut out, ask) {
                    Ok(used) => {
                        assert!(out.len() - before <= ask);
                        piece = &piece[used..];
                        if piece.is_empty() && out.len() == before {
                            break;
                        }
                    }
                    Err(damaged) => return (Err(damaged), out.to_vec()),
                }
            }
        }
        (Ok(inflate.is_whole()), out.to_vec())
    }

    #[test]
    fn gzip_headers_with_all_parts() {
        let mut encoder = GzBuilder::new()
            .extra(vec![1, 2, 3])
            .filename("name")
            .comment("comment")
            .write(Vec::new(), Level::default());
        encoder.write_all(b"data").unwrap();
        let mut bytes = encoder.finish().unwrap();
        assert_eq!(inflate(Compression::Gzip, &bytes, 3, 2), (Ok(true), b"data".to_vec()));
        // Add the header checksum that the encoder cannot write.
        bytes[3] |= FLAG_CRC;
        let body = 10 + 2 + 3 + 5 + 8;
        bytes.splice(body..body, [0xaa, 0xbb]);
        assert_eq!(inflate(Compression::Gzip, &bytes, 1, 9), (Ok(true), b"data".to_vec()));
    }

    #[test]
    fn what_follows_a_stream() {
        let mut bytes = gzip(b"one");
        bytes.extend([0; 5]);
        bytes.extend(gzip(b"two"));
        assert_eq!(inflate(Compression::Gzip, &bytes, 7, 100), (Ok(true), b"onetwo".to_vec()));
        bytes.push(1);
        assert_eq!(inflate(Compression::Gzip, &bytes, 100, 100), (Err(Damaged), b"onetwo".to_vec()));
        let mut bytes = zlib(b"one");
        assert_eq!(inflate(Compression::Zlib, &bytes, 100, 100), (Ok(true), b"one".to_vec()));
        bytes.push(0);
        assert_eq!(inflate(Compression::Zlib, &bytes, 100, 100), (Err(Damaged), b"one".to_vec()));
    }

    #[test]
    fn trailers_are_checked() {
        for from_end in 1..=8 {
            let mut bytes = gzip(b"data");
            let at = bytes.len() - from_end;
            bytes[at] ^= 1;
            bytes.extend(gzip(b"more"));
            assert_eq!(inflate(Compression::Gzip, &bytes, 100, 100), (Err(Damaged), b"data".to_vec()));
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            data in proptest::collection::vec(0_u8..4, 0..2000), piece in 1_usize..300, ask in 1_usize..300,
            cut in any::<prop::sample::Index>(),
        ) {
            for (compression, bytes) in [(Compression::Gzip, gzip(&data)), (Compression::Zlib, zlib(&data))] {
                let (end, out) = inflate(compression, &bytes, piece, ask);
                prop_assert_eq!(end, Ok(true));
                prop_assert_eq!(&out, &data);
                let cut = cut.index(bytes.len());
                let (end, out) = inflate(compression, &bytes[..cut], piece, ask);
                // Nothing at all is a whole gzip stream of no members.
                prop_assert_eq!(end, Ok(cut == 0 && compression == Compression::Gzip));
                prop_assert!(data.starts_with(&out));
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200), gzip: bool) {
            let compression = if gzip { Compression::Gzip } else { Compression::Zlib };
            let mut headed = if gzip { vec![0x1f, 0x8b, 8] } else { vec![0x78, 0x9c] };
            headed.extend(bytes);
            let _ = inflate(compression, &headed, 50, 1000);
        }
    }
}
