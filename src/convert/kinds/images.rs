//! Images, and videos where they are animated GIFs.
//!
//! The bytes stay as the writer encoded them; nothing is decoded. All images of a value make one `images/separated`, also
//! when they differ in size or format: each file keeps its own, the value states the first one's format and a size that
//! holds them all. What cannot be shown because its format is unknown is kept as a file beside them.
//!
//! Members of the history value: <https://github.com/wandb/wandb/blob/main/core/internal/wbvalue/image.go>.

mod header;

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::convert::kinds::images::header::{Format, is_animated};
use crate::convert::kinds::{BadValue, Carried, CarriedFile, Cell, Digested, Names, Subject, media_value};
use crate::model::{Json, SkippedReason};
use crate::tfevents::event::{Data, Value};
use crate::tfevents::tensor::texts;

/// Images of one value that W&B shows; its client leaves the others out.
const SHOWN: usize = 108;

pub(super) fn carry(subject: &Subject<'_>, value: &Value) -> Result<Carried, BadValue> {
    match &value.data {
        Data::Image(image) => {
            let declared = Size::new(i64::from(image.width), i64::from(image.height));
            carry_all(subject, declared, std::slice::from_ref(&image.encoded_image_string))
        }
        Data::Tensor(tensor) => match texts(tensor).map_err(|why| BadValue::new(format!("images in a {why}")))?.1 {
            [width, height, images @ ..] => carry_all(subject, Size::of_texts(width, height), images),
            [] => Ok(Carried::default()),
            [_] => Err(BadValue::new("images without their size")),
        },
        _ => Err(BadValue::new("images that are neither images nor a tensor")),
    }
}

/// Width and height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size {
    width: u32,
    height: u32,
}

impl Size {
    /// `None` for sizes that no image has.
    fn new(width: impl TryInto<u32>, height: impl TryInto<u32>) -> Option<Self> {
        let size = Self { width: width.try_into().ok()?, height: height.try_into().ok()? };
        (size.width > 0 && size.height > 0).then_some(size)
    }

    fn of_texts(width: &[u8], height: &[u8]) -> Option<Self> {
        let number = |text| std::str::from_utf8(text).ok()?.trim().parse::<u32>().ok();
        Self::new(number(width)?, number(height)?)
    }

    /// The smallest size that holds both.
    fn with(self, other: Self) -> Self {
        Self { width: self.width.max(other.width), height: self.height.max(other.height) }
    }

    fn write(self, members: &mut BTreeMap<String, Json>) {
        members.insert("width".to_owned(), Json::from(i64::from(self.width)));
        members.insert("height".to_owned(), Json::from(i64::from(self.height)));
    }
}

/// An image of a known format.
struct Picture<'a> {
    bytes: &'a Bytes,
    format: Format,
    size: Option<Size>,
    animated: bool,
}

/// `declared` stands in for sizes that an image does not state itself, and for nothing else: it is often wrong.
fn carry_all(subject: &Subject<'_>, declared: Option<Size>, images: &[Bytes]) -> Result<Carried, BadValue> {
    let mut carried = Carried::default();
    let mut pictures = Vec::new();
    let mut empty = 0_usize;
    for bytes in images {
        if bytes.is_empty() {
            empty += 1;
        } else if let Some(format) = Format::of(bytes) {
            let size = format.size(bytes).or(declared);
            pictures.push(Picture { bytes, format, size, animated: format == Format::Gif && is_animated(bytes) });
        } else {
            carried.files.push(CarriedFile::kept("images", subject.tag, "bin", bytes.clone(), subject.names));
        }
    }
    if empty > 0 && empty == images.len() {
        return Err(BadValue::new("image without any bytes"));
    }
    carried.notes.extend(std::iter::repeat_n(SkippedReason::BadValue, empty));
    let value = match pictures.as_slice() {
        [] => return Ok(carried.with_each_file_once()),
        [video] if video.animated => video_value(video, subject.names, &mut carried.files),
        all if all.iter().all(|picture| picture.animated) => videos_value(all, subject.names, &mut carried.files),
        all => {
            carried.notes.extend((all.len() > SHOWN).then_some(SkippedReason::NotShown));
            images_value(all, subject.names, &mut carried.files)
        }
    };
    carried.cell = Some(Cell::Json(value));
    Ok(carried.with_each_file_once())
}

fn images_value(pictures: &[Picture<'_>], names: Names, files: &mut Vec<CarriedFile>) -> Json {
    let mut paths = Vec::with_capacity(pictures.len());
    for picture in pictures {
        let (file, _) = CarriedFile::media("images", picture.format.name(), picture.bytes.clone(), names);
        paths.push(file.path.clone());
        files.push(file);
    }
    let mut members = BTreeMap::from([
        ("_type".to_owned(), Json::from("images/separated")),
        ("count".to_owned(), Json::from(count(paths.len()))),
        ("filenames".to_owned(), Json::from(paths)),
    ]);
    if let Some(first) = pictures.first() {
        members.insert("format".to_owned(), Json::from(first.format.name()));
    }
    if let Some(size) = pictures.iter().filter_map(|picture| picture.size).reduce(Size::with) {
        size.write(&mut members);
    }
    Json::Object(members)
}

fn video_value(video: &Picture<'_>, names: Names, files: &mut Vec<CarriedFile>) -> Json {
    let (file, digested): (CarriedFile, Digested) =
        CarriedFile::media("videos", video.format.name(), video.bytes.clone(), names);
    let mut members = media_value("video-file", &file, &digested);
    files.push(file);
    if let Some(size) = video.size {
        size.write(&mut members);
    }
    Json::Object(members)
}

fn videos_value(videos: &[Picture<'_>], names: Names, files: &mut Vec<CarriedFile>) -> Json {
    let each: Vec<Json> = videos.iter().map(|video| video_value(video, names, files)).collect();
    Json::from([
        ("_type", Json::from("videos")),
        ("count", Json::from(count(each.len()))),
        ("videos", Json::Array(each)),
        ("captions", Json::from(false)),
    ])
}

fn count(items: usize) -> i64 {
    i64::try_from(items).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::proto::tensorboard::summary::Image;
    use crate::proto::tensorboard::tensor_shape_proto::Dim;
    use crate::proto::tensorboard::{TensorProto, TensorShapeProto};

    const SUBJECT: Subject<'_> = Subject { tag: "a/picture", key: "train/a/picture", step: 3, names: Names::Sha256 };

    fn png(width: u8, height: u8) -> Bytes {
        [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0".as_slice(), &[width, 0, 0, 0, height]].concat().into()
    }

    fn gif(frames: usize) -> Bytes {
        let frame = b"\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0";
        [b"GIF89a\x05\0\x04\0\0\0\0".as_slice(), &frame.repeat(frames), b";"].concat().into()
    }

    fn carry_data(data: Data) -> Result<Carried, BadValue> {
        carry(&SUBJECT, &Value { tag: Bytes::from_static(b"a/picture"), metadata: None, data })
    }

    fn single(width: i32, height: i32, bytes: Bytes) -> Result<Carried, BadValue> {
        carry_data(Data::Image(Image { width, height, colorspace: 3, encoded_image_string: bytes }))
    }

    fn batch(texts: &[Bytes]) -> Result<Carried, BadValue> {
        let size = i64::try_from(texts.len()).unwrap();
        let shape = TensorShapeProto { dim: vec![Dim { size, ..Default::default() }], unknown_rank: false };
        let tensor =
            TensorProto { dtype: 7, tensor_shape: Some(shape), string_val: texts.to_vec(), ..Default::default() };
        carry_data(Data::Tensor(Box::new(tensor)))
    }

    fn cell(carried: &Carried) -> String {
        let Some(Cell::Json(value)) = &carried.cell else { unreachable!("{carried:?}") };
        value.to_string()
    }

    fn paths(carried: &Carried) -> Vec<&str> {
        carried.files.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn one_image_keeps_its_bytes_and_states_its_own_size() {
        let carried = single(-6, 99, png(5, 4)).unwrap();
        let path = &carried.files[0].path;
        assert!(path.starts_with("media/images/") && path.ends_with(".png"), "{path}");
        assert_eq!(carried.files[0].content, png(5, 4));
        assert_eq!(
            cell(&carried),
            format!(
                r#"{{"_type":"images/separated","count":1,"filenames":["{path}"],"format":"png","height":4,"width":5}}"#
            )
        );
        assert_eq!(carried.notes, []);
    }

    #[test]
    fn batches_arrive_whole_whatever_is_in_them() {
        let text = Bytes::from_static;
        let carried =
            batch(&[text(b"eight"), text(b"-6"), png(5, 4), text(b"\xff\xd8\xff\xe0"), png(2, 9), gif(2), png(5, 4)]);
        let carried = carried.unwrap();
        // Four contents; the last image is the first one again.
        assert_eq!(carried.files.len(), 4);
        let paths = paths(&carried);
        let names = [paths[0], paths[1], paths[2], paths[3], paths[0]].map(|path| format!("\"{path}\"")).join(",");
        assert_eq!(
            cell(&carried),
            format!(
                r#"{{"_type":"images/separated","count":5,"filenames":[{names}],"format":"png","height":9,"width":5}}"#
            )
        );
        assert!(paths[1].ends_with(".jpeg") && paths[3].starts_with("media/images/"));
    }

    #[test]
    fn a_size_that_an_image_does_not_state_is_the_declared_one() {
        assert!(cell(&single(7, 3, Bytes::from_static(b"<svg />")).unwrap()).contains(r#""height":3,"width":7"#));
        assert!(!cell(&single(0, 3, Bytes::from_static(b"<svg />")).unwrap()).contains("width"));
    }

    #[test]
    fn images_that_are_not_there_take_nothing_along() {
        let text = Bytes::from_static;
        assert_eq!(batch(&[]).unwrap(), Carried::default());
        assert_eq!(batch(&[text(b"8"), text(b"8")]).unwrap(), Carried::default());
        assert!(batch(&[text(b"8")]).is_err());
        assert!(batch(&[text(b"8"), text(b"8"), Bytes::new()]).is_err());
        assert!(single(1, 1, Bytes::new()).is_err());
        assert!(carry_data(Data::None).is_err());
        let carried = batch(&[text(b"8"), text(b"8"), Bytes::new(), png(1, 1), Bytes::new()]).unwrap();
        assert!(cell(&carried).contains(r#""count":1"#));
        assert_eq!(carried.notes, [SkippedReason::BadValue, SkippedReason::BadValue]);
    }

    #[test]
    fn bytes_of_unknown_format_are_kept_beside_the_others() {
        let carried = single(1, 1, Bytes::from_static(b"whatever")).unwrap();
        assert_eq!((carried.cell.is_none(), carried.files[0].content.as_ref()), (true, b"whatever".as_slice()));
        assert!(carried.files[0].path.starts_with("tensorboard/images/a_picture-"));
        let text = Bytes::from_static;
        let carried = batch(&[text(b"1"), text(b"1"), text(b"whatever"), png(1, 1)]).unwrap();
        assert!(cell(&carried).contains(r#""count":1"#));
        assert_eq!(carried.files.len(), 2);
    }

    #[test]
    fn gifs_that_move_are_videos() {
        let carried = single(1, 1, gif(2)).unwrap();
        let path = paths(&carried)[0];
        assert!(path.starts_with("media/videos/") && path.ends_with(".gif"), "{path}");
        let value = cell(&carried);
        assert!(value.starts_with(r#"{"_type":"video-file","height":4,"path":"media/videos/"#), "{value}");
        assert!(value.ends_with(r#","size":44,"width":5}"#), "{value}");
        assert!(cell(&single(1, 1, gif(1)).unwrap()).contains(r#""format":"gif""#));
        let text = Bytes::from_static;
        let value = cell(&batch(&[text(b"1"), text(b"1"), gif(2), gif(3)]).unwrap());
        assert!(value.starts_with(r#"{"_type":"videos","captions":false,"count":2,"videos":[{"_type":"video-file""#));
    }

    #[test]
    fn more_images_than_are_shown_are_all_carried() {
        let images: Vec<Bytes> = (1..=109).map(|width| png(width, 1)).collect();
        let sizes = [Bytes::from_static(b"1"), Bytes::from_static(b"1")];
        let carried = batch(&[&sizes, images.as_slice()].concat()).unwrap();
        assert_eq!((carried.files.len(), carried.notes.as_slice()), (109, [SkippedReason::NotShown].as_slice()));
        assert_eq!(batch(&[&sizes, &images[..108]].concat()).unwrap().notes, []);
    }
}
