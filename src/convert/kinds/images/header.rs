//! What the first bytes of an image say: its format and its size, and of a GIF whether it moves.
//!
//! Pure. Reads headers and steps over blocks, never into compressed data; any bytes are survived, and nothing is
//! allocated. Layouts: PNG (<https://www.w3.org/TR/png-3/>, 11.2.1), JPEG (ITU-T T.81, annex B), GIF89a, BMP, WebP
//! (RFC 9649).

use crate::convert::kinds::bytes_at;
use crate::convert::kinds::images::Size;

/// A format that is known by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Png,
    Jpeg,
    Gif,
    Bmp,
    Webp,
    Tiff,
    Avif,
    Svg,
}

impl Format {
    /// `None`: none of these.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Self::Png),
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::Webp),
            [b'I', b'I', b'*' | b'+', 0, ..] | [b'M', b'M', 0, b'*' | b'+', ..] => Some(Self::Tiff),
            [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', b'f' | b's', ..] => Some(Self::Avif),
            // Two letters alone are no proof: the header behind them has one of few sizes.
            [b'B', b'M', ..] if matches!(le_u32(bytes, 14), Some(12 | 16 | 40..=124)) => Some(Self::Bmp),
            _ => is_svg(bytes).then_some(Self::Svg),
        }
    }

    /// What history calls it, and the ending of its files.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Gif => "gif",
            Self::Bmp => "bmp",
            Self::Webp => "webp",
            Self::Tiff => "tiff",
            Self::Avif => "avif",
            Self::Svg => "svg",
        }
    }

    /// The size that the image states, where its format has a simple place for it.
    pub(super) fn size(self, bytes: &[u8]) -> Option<Size> {
        match self {
            Self::Png => png(bytes),
            Self::Jpeg => jpeg(bytes),
            Self::Gif => Size::new(le_u16(bytes, 6)?, le_u16(bytes, 8)?),
            Self::Bmp => bmp(bytes),
            Self::Webp => webp(bytes),
            Self::Tiff | Self::Avif | Self::Svg => None,
        }
    }
}

/// Whether a GIF has more than one frame.
pub(super) fn is_animated(gif: &[u8]) -> bool {
    gif_frames(gif).take(2).count() > 1
}

/// The offsets of a GIF's frames. Ends at the trailer, or where the bytes do.
fn gif_frames(gif: &[u8]) -> impl Iterator<Item = usize> {
    // Signature and version 6 · logical screen 7 · global color table.
    let mut at = gif.get(10).map_or(gif.len(), |&flags| 13 + color_table(flags));
    std::iter::from_fn(move || {
        loop {
            match gif.get(at)? {
                // Extension: its label, then sub-blocks.
                0x21 => at = after_sub_blocks(gif, at + 2)?,
                // Image: its descriptor, a color table, the size of a code, then sub-blocks.
                0x2c => {
                    let frame = at;
                    let flags = *gif.get(at + 9)?;
                    at = after_sub_blocks(gif, at + 10 + color_table(flags) + 1).unwrap_or(gif.len());
                    return Some(frame);
                }
                _ => return None,
            }
        }
    })
}

/// Size of a color table, by the flags of what it belongs to.
fn color_table(flags: u8) -> usize {
    if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) }
}

fn after_sub_blocks(gif: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let size = usize::from(*gif.get(at)?);
        at += 1 + size;
        if size == 0 {
            return Some(at);
        }
    }
}

fn png(bytes: &[u8]) -> Option<Size> {
    (bytes_at(bytes, 12)? == *b"IHDR").then_some(())?;
    Size::new(u32::from_be_bytes(bytes_at(bytes, 16)?), u32::from_be_bytes(bytes_at(bytes, 20)?))
}

/// Steps from marker to marker until one begins a frame.
fn jpeg(bytes: &[u8]) -> Option<Size> {
    let mut at = 2;
    loop {
        if *bytes.get(at)? != 0xff {
            return None;
        }
        match *bytes.get(at + 1)? {
            // A fill byte.
            0xff => at += 1,
            // Markers without a segment.
            0x01 | 0xd0..=0xd8 => at += 2,
            // Length 2 · precision 1 · height 2 · width 2.
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                let height = u16::from_be_bytes(bytes_at(bytes, at + 5)?);
                return Size::new(u16::from_be_bytes(bytes_at(bytes, at + 7)?), height);
            }
            // Compressed data, or the end, and no frame before it.
            0xda | 0xd9 => return None,
            _ => {
                let length = usize::from(u16::from_be_bytes(bytes_at(bytes, at + 2)?));
                at += 2 + length.max(2);
            }
        }
    }
}

/// The height is negative where rows go from top to bottom.
fn bmp(bytes: &[u8]) -> Option<Size> {
    if le_u32(bytes, 14)? == 12 {
        return Size::new(le_u16(bytes, 18)?, le_u16(bytes, 20)?);
    }
    let signed = |at| Some(le_u32(bytes, at)?.cast_signed());
    Size::new(signed(18)?, signed(22)?.unsigned_abs())
}

fn webp(bytes: &[u8]) -> Option<Size> {
    match &bytes_at::<4>(bytes, 12)? {
        b"VP8 " => {
            (bytes_at(bytes, 23)? == [0x9d, 0x01, 0x2a]).then_some(())?;
            Size::new(le_u16(bytes, 26)? & 0x3fff, le_u16(bytes, 28)? & 0x3fff)
        }
        b"VP8L" => {
            (bytes_at(bytes, 20)? == [0x2f]).then_some(())?;
            let bits = le_u32(bytes, 21)?;
            Size::new((bits & 0x3fff) + 1, ((bits >> 14) & 0x3fff) + 1)
        }
        b"VP8X" => {
            let three = |at| bytes_at(bytes, at).map(|[a, b, c]| u32::from_le_bytes([a, b, c, 0]) + 1);
            Size::new(three(24)?, three(27)?)
        }
        _ => None,
    }
}

/// Whether this is the text of an SVG: its first element is looked for behind what may stand before it.
fn is_svg(bytes: &[u8]) -> bool {
    const LOOKED_AT: usize = 4096;
    let head = bytes.get(..LOOKED_AT).unwrap_or(bytes);
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let starts_svg = |text: &[u8]| matches!(text, [b'<', b's', b'v', b'g', next, ..] if !next.is_ascii_alphanumeric());
    let has_prolog = [b"<?xml".as_slice(), b"<!--", b"<!DOCTYPE svg"].iter().any(|start| head.starts_with(start));
    starts_svg(head) || (has_prolog && head.windows(5).any(starts_svg))
}

fn le_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

fn le_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(bytes: &[u8], name: &str, size: Option<(u32, u32)>) {
        let format = Format::of(bytes);
        assert_eq!(format.map(Format::name), Some(name));
        let got = format.and_then(|format| format.size(bytes)).map(|size| (size.width, size.height));
        assert_eq!(got, size, "{name}");
    }

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x01\x02\0\0\0\x03\x08\x02\0\0\0";

    /// A GIF with so many frames of one pixel, each behind a graphic control extension.
    fn gif(frames: usize) -> Vec<u8> {
        let mut gif = b"GIF89a\x05\0\x04\0\x80\0\0\0\0\0\xff\xff\xff".to_vec();
        for _ in 0..frames {
            gif.extend(b"\x21\xf9\x04\0\x0a\0\0\0");
            gif.extend(b"\x2c\0\0\0\0\x01\0\x01\0\x81\0\0\0\0\0\0\0\0\0\0\0\0\x02\x02\x44\x01\0");
        }
        gif.push(0x3b);
        gif
    }

    #[test]
    fn formats_and_sizes() {
        check(PNG, "png", Some((258, 3)));
        check(&PNG[..20], "png", None);
        check(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\0\0\0\0\x03", "png", None);
        // A segment of the application, fill bytes, tables, then the frame.
        let jpeg = b"\xff\xd8\xff\xe0\0\x04ab\xff\xff\xff\xc4\0\x03a\xff\xc2\0\x0b\x08\0\x07\x01\0\x03";
        check(jpeg, "jpeg", Some((256, 7)));
        check(b"\xff\xd8\xff\xda\0\x03a\xff\xc0\0\x0b\x08\0\x07\x01\0\x03", "jpeg", None);
        check(b"\xff\xd8\xff\xe0\0\0", "jpeg", None);
        check(&gif(1), "gif", Some((5, 4)));
        check(b"BM0000\0\0\0\0\0\0\0\0\x28\0\0\0\x03\x01\0\0\xfe\xff\xff\xff\x01\0", "bmp", Some((259, 2)));
        check(b"BM0000\0\0\0\0\0\0\0\0\x0c\0\0\0\x03\x01\x02\0\x01\0", "bmp", Some((259, 2)));
        check(b"RIFF0000WEBPVP8 0000\0\0\0\x9d\x01\x2a\x03\x40\x02\xc0", "webp", Some((3, 2)));
        // 14 bits each, less one: 2 and 257.
        check(b"RIFF0000WEBPVP8L0000\x2f\x02\x40\x40\0", "webp", Some((3, 258)));
        check(b"RIFF0000WEBPVP8X0000\0\0\0\0\x02\x01\0\x04\0\0", "webp", Some((259, 5)));
        check(b"RIFF0000WEBPVP8 0000\0\0\0abc", "webp", None);
        check(b"II*\0abcd", "tiff", None);
        check(b"MM\0*abcd", "tiff", None);
        check(b"\0\0\0\x1cftypavif", "avif", None);
        check(b"<svg xmlns='x'/>", "svg", None);
        check(b"\xef\xbb\xbf\n<?xml version='1.0'?>\n<!-- a --><svg></svg>", "svg", None);
    }

    #[test]
    fn other_bytes_have_no_format() {
        for bytes in [
            b"".as_slice(),
            b"BM",
            b"BMW is a car maker",
            b"RIFF0000WAVE",
            b"GIF88a",
            b"<html><svg></svg>",
            b"<svgs>",
            b"\x89PNG",
        ] {
            assert_eq!(Format::of(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_gif_moves_with_its_second_frame() {
        for (frames, moves) in [(0, false), (1, false), (2, true), (3, true)] {
            assert_eq!(is_animated(&gif(frames)), moves, "{frames}");
            assert_eq!(gif_frames(&gif(frames)).count(), frames);
        }
        // Cut within the second frame's descriptor, and within its data.
        let two = gif(2);
        assert!(!is_animated(&two[..two.len() - 22]));
        assert!(is_animated(&two[..two.len() - 3]));
        // What follows the trailer is not part of it.
        assert!(!is_animated(&[gif(1), gif(1)].concat()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(
            start in proptest::sample::select(vec![
                PNG, b"\xff\xd8\xff", b"GIF89a", b"BM0000\0\0\0\0\0\0\0\0\x28\0\0\0", b"RIFF0000WEBPVP8 ",
                b"RIFF0000WEBPVP8L", b"RIFF0000WEBPVP8X", b"",
            ]),
            rest in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [start, &rest].concat();
            if let Some(format) = Format::of(&bytes) {
                let _ = format.size(&bytes);
            }
            let _ = is_animated(&bytes);
        }

        #[test]
        fn a_cut_gif_is_survived(frames in 0_usize..4, cut in 0_usize..200, at in 0_usize..200, byte: u8) {
            let mut bytes = gif(frames);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            bytes.truncate(cut);
            prop_assert!(gif_frames(&bytes).count() <= bytes.len());
        }
    }
}
