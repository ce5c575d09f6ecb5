//! What the first bytes of a clip say: its format, and of a WAV file its sample rate and duration.
//!
//! Pure. Reads headers only; any bytes are survived, and nothing is allocated.

use crate::convert::kinds::bytes_at;
use crate::model::Number;

/// The ending of a clip's file, by its first bytes; `None` for a format that is not known.
pub(super) fn extension(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [b'R', b'I', b'F', b'F' | b'X', _, _, _, _, b'W', b'A', b'V', b'E', ..]
        | [b'R', b'F', b'6', b'4', _, _, _, _, b'W', b'A', b'V', b'E', ..] => Some("wav"),
        [b'O', b'g', b'g', b'S', ..] => Some("ogg"),
        [b'f', b'L', b'a', b'C', ..] => Some("flac"),
        [b'F', b'O', b'R', b'M', _, _, _, _, b'A', b'I', b'F', b'F' | b'C', ..] => Some("aiff"),
        [b'I', b'D', b'3', ..] => Some("mp3"),
        // ADTS: layer 0, which is no layer of MPEG audio.
        [0xff, 0xf0 | 0xf1 | 0xf8 | 0xf9, ..] => Some("aac"),
        // 11 bits of synchronization, a version and a layer that exist.
        [0xff, second, ..] if second & 0xe0 == 0xe0 && second & 0x18 != 0x08 && second & 0x06 != 0 => Some("mp3"),
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => Some("m4a"),
        [0x1a, 0x45, 0xdf, 0xa3, ..] => Some("webm"),
        [b'.', b's', b'n', b'd', ..] => Some("au"),
        _ => None,
    }
}

/// The ending of a clip's file, by what its writer calls it.
pub(super) fn extension_of_content_type(content_type: &[u8]) -> Option<&'static str> {
    let name = content_type.split(|&byte| byte == b';').next()?.trim_ascii();
    [
        ("audio/wav", "wav"),
        ("audio/x-wav", "wav"),
        ("audio/wave", "wav"),
        ("audio/vnd.wave", "wav"),
        ("audio/mpeg", "mp3"),
        ("audio/mp3", "mp3"),
        ("audio/ogg", "ogg"),
        ("audio/flac", "flac"),
        ("audio/x-flac", "flac"),
        ("audio/aiff", "aiff"),
        ("audio/aac", "aac"),
        ("audio/mp4", "m4a"),
        ("audio/webm", "webm"),
        ("audio/basic", "au"),
    ]
    .into_iter()
    .find(|(content_type, _)| name.eq_ignore_ascii_case(content_type.as_bytes()))
    .map(|(_, extension)| extension)
}

/// How fast a clip is played, and how long it takes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Timing {
    /// Samples a second.
    pub(super) sample_rate: Option<Number>,
    /// Seconds.
    pub(super) duration: Option<Number>,
}

impl Timing {
    /// What a writer says.
    pub(super) fn declared(sample_rate: f32, frames: i64) -> Self {
        let sample_rate = Some(sample_rate).filter(|rate| rate.is_finite() && *rate > 0.0);
        let duration = sample_rate.filter(|_| frames > 0).map(|rate| frames as f64 / f64::from(rate));
        // Nearly all rates are whole numbers, and read better so.
        #[expect(clippy::cast_possible_truncation, reason = "a whole number in the range")]
        let number = |rate: f32| match rate.fract() == 0.0 && rate < 1e9 {
            true => Number::I64(rate as i64),
            false => Number::F32(rate),
        };
        Self { sample_rate: sample_rate.map(number), duration: duration.map(Number::F64) }
    }

    /// What a WAV file says; nothing for any other.
    pub(super) fn of_wav(bytes: &[u8]) -> Self {
        wav(bytes).unwrap_or_default()
    }

    /// Takes from `other` what is not known.
    pub(super) fn or(self, other: Self) -> Self {
        Self { sample_rate: self.sample_rate.or(other.sample_rate), duration: self.duration.or(other.duration) }
    }
}

/// RIFF header 12, then chunks: name 4 · size 4 · content, padded to an even size.
fn wav(bytes: &[u8]) -> Option<Timing> {
    (extension(bytes)? == "wav").then_some(())?;
    // RIFX is the form with the other byte order, which no writer of events makes.
    (bytes.first() == Some(&b'R') && bytes.get(3) != Some(&b'X')).then_some(())?;
    let mut at = 12_usize;
    let mut format: Option<WavFormat> = None;
    while let Some(name) = bytes_at::<4>(bytes, at) {
        let size = u32::from_le_bytes(bytes_at(bytes, at + 4)?) as usize;
        at += 8;
        match &name {
            b"fmt " => format = WavFormat::read(bytes, at),
            b"data" => {
                // A writer that does not know the size yet puts a huge one.
                let there = size.min(bytes.len().saturating_sub(at));
                return format.map(|format| format.timing(Some(there)));
            }
            _ => {}
        }
        at = at.checked_add(size)?.checked_add(size & 1)?;
    }
    format.map(|format| format.timing(None))
}

/// The `fmt ` chunk: coding 2 · channels 2 · sample rate 4 · bytes a second 4 · bytes a frame 2.
#[derive(Debug, Clone, Copy)]
struct WavFormat {
    coding: u16,
    sample_rate: u32,
    bytes_a_second: u32,
    bytes_a_frame: u16,
}

impl WavFormat {
    fn read(bytes: &[u8], at: usize) -> Option<Self> {
        Some(Self {
            coding: u16::from_le_bytes(bytes_at(bytes, at)?),
            sample_rate: u32::from_le_bytes(bytes_at(bytes, at + 4)?),
            bytes_a_second: u32::from_le_bytes(bytes_at(bytes, at + 8)?),
            bytes_a_frame: u16::from_le_bytes(bytes_at(bytes, at + 12)?),
        })
    }

    fn timing(self, size: Option<usize>) -> Timing {
        // PCM, floats, A-law, µ-law and the extensible form of them have frames of one size.
        let has_frames = matches!(self.coding, 1 | 3 | 6 | 7 | 0xfffe) && self.bytes_a_frame > 0;
        let seconds = |size: usize| match (has_frames, self.sample_rate, self.bytes_a_second) {
            (true, 1.., _) => Some((size / usize::from(self.bytes_a_frame)) as f64 / f64::from(self.sample_rate)),
            (false, _, 1..) => Some(size as f64 / f64::from(self.bytes_a_second)),
            _ => None,
        };
        Timing {
            sample_rate: (self.sample_rate > 0).then(|| Number::I64(i64::from(self.sample_rate))),
            duration: size.and_then(seconds).map(Number::F64),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A WAV file of 16-bit samples with a chunk of an odd size before its data, which claims a size.
    fn wav_file(coding: u16, rate: u32, data: &[u8], claimed: u32) -> Vec<u8> {
        let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0".to_vec();
        file.extend(coding.to_le_bytes());
        file.extend(2_u16.to_le_bytes());
        file.extend(rate.to_le_bytes());
        file.extend((rate * 4).to_le_bytes());
        file.extend(4_u16.to_le_bytes());
        file.extend(16_u16.to_le_bytes());
        file.extend(b"LIST\x01\0\0\0x\0");
        file.extend(b"data");
        file.extend(claimed.to_le_bytes());
        file.extend(data);
        file
    }

    fn check(bytes: &[u8], rate: Option<i64>, duration: Option<f64>) {
        let expected = Timing { sample_rate: rate.map(Number::I64), duration: duration.map(Number::F64) };
        assert_eq!(Timing::of_wav(bytes), expected);
    }

    #[test]
    fn wav_files_say_how_long_they_take() {
        check(&wav_file(1, 8000, &[0; 3200], 3200), Some(8000), Some(0.1));
        check(&wav_file(3, 8000, &[0; 3200], 1600), Some(8000), Some(0.05));
        // More is claimed than there is.
        check(&wav_file(1, 8000, &[0; 3200], u32::MAX), Some(8000), Some(0.1));
        // A compressed coding: by the bytes a second.
        check(&wav_file(17, 8000, &[0; 3200], 3200), Some(8000), Some(0.1));
        check(&wav_file(1, 0, &[0; 3200], 3200), None, None);
        check(&wav_file(1, 8000, &[], 0)[..36], Some(8000), None);
        check(b"RIFF\0\0\0\0WAVE", None, None);
        check(b"OggS", None, None);
    }

    #[test]
    fn writers_say_it_where_the_clip_does_not() {
        let declared = Timing::declared(44_100.0, 22_050);
        assert_eq!(declared, Timing { sample_rate: Some(Number::I64(44_100)), duration: Some(Number::F64(0.5)) });
        assert_eq!(Timing::default().or(declared), declared);
        for (rate, frames) in [(f32::NAN, 1), (-1.0, 1), (0.0, 1), (f32::INFINITY, 1)] {
            assert_eq!(Timing::declared(rate, frames), Timing::default());
        }
        assert_eq!(Timing::declared(0.5, -1), Timing { sample_rate: Some(Number::F32(0.5)), duration: None });
    }

    #[test]
    fn formats_by_their_first_bytes() {
        for (bytes, expected) in [
            (b"RIFF0000WAVE".as_slice(), Some("wav")),
            (b"RF640000WAVE", Some("wav")),
            (b"RIFF0000WEBP", None),
            (b"OggS", Some("ogg")),
            (b"fLaC", Some("flac")),
            (b"ID3", Some("mp3")),
            (b"\xff\xfb\x90\x64", Some("mp3")),
            (b"\xff\xf3\x90", Some("mp3")),
            (b"\xff\xf1\x50", Some("aac")),
            (b"\xff\xff\xff", Some("mp3")),
            (b"\xff\xd8\xff", None),
            (b"FORM0000AIFF", Some("aiff")),
            (b"\0\0\0\x20ftypM4A ", Some("m4a")),
            (b"", None),
            (b"plain", None),
        ] {
            assert_eq!(extension(bytes), expected, "{bytes:?}");
        }
        assert_eq!(extension_of_content_type(b"Audio/MPEG; rate=1"), Some("mp3"));
        assert_eq!(extension_of_content_type(b"text/html"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(
            rest in proptest::collection::vec(any::<u8>(), 0..200), claimed: u32, size: u32, coding: u16,
        ) {
            let mut file = wav_file(coding, 8000, &rest, claimed);
            let _ = Timing::of_wav(&file);
            file[16..20].copy_from_slice(&size.to_le_bytes());
            let _ = Timing::of_wav(&file);
            let _ = Timing::of_wav(&[b"RIFF0000WAVE".as_slice(), &rest].concat());
            let _ = extension(&rest);
        }
    }
}
