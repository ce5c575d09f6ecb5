//! Sound: one clip becomes an `audio-file`, several become `audio`.
//!
//! The bytes stay as the writer encoded them; nothing is decoded. Labels become captions, their markdown left as it is.
//! What is known of sample rate and duration comes from the clip itself or else from the writer; history has places for
//! both only where there are several clips.

mod clip;

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;

use crate::convert::kinds::audio::clip::{Timing, extension, extension_of_content_type};
use crate::convert::kinds::{BadValue, Carried, CarriedFile, Cell, Subject, media_value};
use crate::model::{Json, Number, SkippedReason};
use crate::tfevents::event::{Data, Value};
use crate::tfevents::tensor::texts;

pub(super) fn carry(subject: &Subject<'_>, value: &Value) -> Result<Carried, BadValue> {
    match &value.data {
        Data::Audio(audio) => {
            let clip = Clip {
                bytes: &audio.encoded_audio_string,
                label: &[],
                named: extension_of_content_type(&audio.content_type),
                declared: Timing::declared(audio.sample_rate, audio.length_frames),
            };
            carry_all(subject, &[clip])
        }
        Data::Tensor(tensor) => {
            let (shape, texts) = texts(tensor).map_err(|why| BadValue::new(format!("audio in a {why}")))?;
            let clip = |bytes, label| Clip { bytes, label, named: None, declared: Timing::default() };
            let clips: Vec<Clip<'_>> = match shape.as_slice() {
                [] | [_] => texts.iter().map(|bytes| clip(bytes, &[])).collect(),
                // A tensor without columns has no clips.
                [_, columns] => texts
                    .chunks(1.max(*columns))
                    .filter_map(|row| Some(clip(row.first()?, row.get(1).map_or(&[], |label| label))))
                    .collect(),
                _ => return Err(BadValue::new(format!("audio in a tensor of {} dimensions", shape.len()))),
            };
            carry_all(subject, &clips)
        }
        _ => Err(BadValue::new("audio that is neither a clip nor a tensor")),
    }
}

/// One clip, as the writer gave it.
struct Clip<'a> {
    bytes: &'a Bytes,
    /// Markdown; empty: none.
    label: &'a [u8],
    /// What the writer calls the format.
    named: Option<&'static str>,
    declared: Timing,
}

/// One clip that has a file.
struct Sound {
    members: BTreeMap<String, Json>,
    caption: Option<String>,
    timing: Timing,
}

fn carry_all(subject: &Subject<'_>, clips: &[Clip<'_>]) -> Result<Carried, BadValue> {
    let mut carried = Carried::default();
    let mut sounds = Vec::new();
    for clip in clips {
        if clip.bytes.is_empty() {
            carried.notes.push(SkippedReason::BadValue);
        } else if let Some(extension) = extension(clip.bytes).or(clip.named) {
            let (file, digested) = CarriedFile::media("audio", extension, clip.bytes.clone(), subject.names);
            let mut members = media_value("audio-file", &file, &digested);
            carried.files.push(file);
            let caption = caption(clip.label);
            members.extend(caption.clone().map(|caption| ("caption".to_owned(), Json::from(caption))));
            sounds.push(Sound { members, caption, timing: Timing::of_wav(clip.bytes).or(clip.declared) });
        } else {
            carried.files.push(CarriedFile::kept("audio", subject.tag, "bin", clip.bytes.clone(), subject.names));
        }
    }
    if !clips.is_empty() && carried.notes.len() == clips.len() {
        return Err(BadValue::new("clip without any bytes"));
    }
    carried.cell = match sounds.len() {
        0 => None,
        1 => sounds.pop().map(|only| Cell::Json(Json::Object(only.members))),
        _ => Some(Cell::Json(several(sounds))),
    };
    Ok(carried.with_each_file_once())
}

fn several(sounds: Vec<Sound>) -> Json {
    let known = |number: Option<Number>| number.map_or(Json::Null, Json::from);
    let mut members = BTreeMap::from([
        ("_type".to_owned(), Json::from("audio")),
        ("count".to_owned(), Json::from(i64::try_from(sounds.len()).unwrap_or(i64::MAX))),
        (
            "sampleRates".to_owned(),
            sounds.iter().map(|sound| known(sound.timing.sample_rate)).collect::<Vec<_>>().into(),
        ),
        ("durations".to_owned(), sounds.iter().map(|sound| known(sound.timing.duration)).collect::<Vec<_>>().into()),
    ]);
    if sounds.iter().any(|sound| sound.caption.is_some()) {
        let captions: Vec<String> = sounds.iter().map(|sound| sound.caption.clone().unwrap_or_default()).collect();
        members.insert("captions".to_owned(), Json::from(captions));
    }
    let clips = sounds.into_iter().map(|sound| Json::Object(sound.members)).collect();
    members.insert("audio".to_owned(), Json::Array(clips));
    Json::Object(members)
}

fn caption(label: &[u8]) -> Option<String> {
    let text: Cow<'_, str> = String::from_utf8_lossy(label);
    let text = text.replace('\0', "");
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::convert::kinds::{Digested, Names};
    use crate::proto::tensorboard::summary::Audio;
    use crate::proto::tensorboard::tensor_shape_proto::Dim;
    use crate::proto::tensorboard::{TensorProto, TensorShapeProto};

    fn carry_data(data: Data) -> Result<Carried, BadValue> {
        let subject = Subject { tag: "tone", key: "tone", step: 0, names: Names::Sha256 };
        carry(&subject, &Value { tag: Bytes::from_static(b"tone"), metadata: None, data })
    }

    fn tensor(sizes: &[i64], texts: &[&'static [u8]]) -> Result<Carried, BadValue> {
        let dim = sizes.iter().map(|&size| Dim { size, ..Default::default() }).collect();
        let string_val = texts.iter().map(|text| Bytes::from_static(text)).collect();
        let tensor_shape = Some(TensorShapeProto { dim, unknown_rank: false });
        carry_data(Data::Tensor(Box::new(TensorProto { dtype: 7, tensor_shape, string_val, ..Default::default() })))
    }

    fn cell(carried: &Carried) -> String {
        let Some(Cell::Json(value)) = &carried.cell else { unreachable!("{carried:?}") };
        value.to_string()
    }

    /// 8,000 frames a second of two bytes; four of them.
    const WAV: &[u8] =
        b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\x08\0\0\0abcdefgh";

    #[test]
    fn one_clip_is_a_file() {
        let clip = |content_type: &'static [u8], bytes: &'static [u8]| {
            carry_data(Data::Audio(Audio {
                sample_rate: 44_100.0,
                num_channels: 1,
                length_frames: 1,
                encoded_audio_string: Bytes::from_static(bytes),
                content_type: Bytes::from_static(content_type),
            }))
        };
        let carried = clip(b"audio/mpeg", WAV).unwrap();
        let file = &carried.files[0];
        assert_eq!(file.content, WAV);
        assert!(file.path.starts_with("media/audio/") && file.path.ends_with(".wav"), "{}", file.path);
        let value = cell(&carried);
        assert!(value.starts_with(&format!(r#"{{"_type":"audio-file","path":"{}","sha256":""#, file.path)), "{value}");
        assert!(value.ends_with(r#"","size":52}"#), "{value}");
        assert!(clip(b"audio/mpeg", b"?").unwrap().files[0].path.ends_with(".mp3"));
        let kept = clip(b"", b"?").unwrap();
        assert!(kept.cell.is_none() && kept.files[0].path.starts_with("tensorboard/audio/tone-"));
        assert!(clip(b"audio/wav", b"").is_err());
    }

    #[test]
    fn labels_are_captions() {
        let labeled = tensor(&[1, 2], &[WAV, b"*a*\0"]).unwrap();
        assert!(cell(&labeled).contains(r#""caption":"*a*""#));
        assert!(!cell(&tensor(&[1, 2], &[WAV, b""]).unwrap()).contains("caption"));
    }

    #[test]
    fn several_clips_are_one_value() {
        let carried = tensor(&[3, 2], &[WAV, b"", b"OggS", b"second", b"", b"third"]).unwrap();
        let value = cell(&carried);
        let clip = |file: &CarriedFile, caption: &str| {
            let members = media_value("audio-file", file, &Digested::of(&file.content, Names::Sha256));
            let mut value = Json::Object(members);
            if !caption.is_empty() {
                value.set_path(&["caption"], Json::from(caption));
            }
            value.to_string()
        };
        let clips = format!("{},{}", clip(&carried.files[0], ""), clip(&carried.files[1], "second"));
        assert_eq!(
            value,
            format!(
                r#"{{"_type":"audio","audio":[{clips}],"captions":["","second"],"count":2,"durations":[0.0005,null],"sampleRates":[8000,null]}}"#
            )
        );
        assert_eq!(carried.notes, [SkippedReason::BadValue]);
        // The same clip twice is one file.
        let twice = tensor(&[2], &[WAV, WAV]).unwrap();
        assert_eq!(twice.files.len(), 1);
        assert!(cell(&twice).contains(r#""count":2"#) && !cell(&twice).contains("captions"));
    }

    #[test]
    fn clips_that_are_not_there_take_nothing_along() {
        for shape in [[0].as_slice(), &[0, 2], &[3, 0]] {
            assert_eq!(tensor(shape, &[]).unwrap(), Carried::default());
        }
        assert!(tensor(&[1, 1, 1], &[WAV]).is_err());
        assert!(carry_data(Data::None).is_err());
        assert!(cell(&tensor(&[], &[WAV]).unwrap()).contains("audio-file"));
        assert!(cell(&tensor(&[1, 3], &[WAV, b"label", b"more"]).unwrap()).contains(r#""caption":"label""#));
    }
}
