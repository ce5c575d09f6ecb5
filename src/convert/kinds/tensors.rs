//! Tensors that no plugin claims, data of unknown plugins, and old forms: kept as files.
//!
//! Numbers as `.npy`, texts as `.json`, and what is neither as the message itself, `.pb`. The step stands in the name,
//! because nothing else says which file is from when. What a plugin keeps in the metadata is kept beside the value.

use bytes::Bytes;
use prost::Message;

use crate::convert::kinds::npy::npy;
use crate::convert::kinds::{BadValue, Carried, CarriedFile, Subject};
use crate::model::Json;
use crate::proto::tensorboard::TensorProto;
use crate::tfevents::ValueKind;
use crate::tfevents::event::{Data, Value};
use crate::tfevents::tensor::texts;

/// So much of a tag stands before the step: the whole must not be cut by the length that a name may have.
const MAX_TAG: usize = 56;

pub(super) fn carry(subject: &Subject<'_>, kind: &ValueKind, value: &Value) -> Result<Carried, BadValue> {
    let tag: String = subject.tag.chars().take(MAX_TAG).collect();
    let name = format!("{tag}-{}", subject.step);
    let kept = |extension, content| CarriedFile::kept(kind.name(), &name, extension, content, subject.names);
    let mut files = Vec::new();
    match &value.data {
        Data::Tensor(tensor) => {
            let (extension, content) = tensor_file(tensor)?;
            files.push(kept(extension, content));
        }
        // Nothing says any more what it holds.
        Data::OldHistogram(bytes) => files.push(kept("bin", bytes.clone())),
        _ => {}
    }
    if matches!(kind, ValueKind::Plugin(_)) {
        let content = value.metadata.as_ref().map(|metadata| metadata.plugin_content.clone());
        let content = content.filter(|content| !matches!(&**content, b"" | b"{}"));
        // It is about the tag, and most writers repeat it with each value.
        files.extend(content.map(|content| CarriedFile::kept(kind.name(), &tag, "plugin.pb", content, subject.names)));
    }
    if files.is_empty() {
        return Err(BadValue::new("no value"));
    }
    Ok(Carried { files, ..Carried::default() })
}

/// The texts of a value that is a tensor of texts, of any shape.
pub(super) fn texts_of(value: &Value) -> Result<&[Bytes], BadValue> {
    match &value.data {
        Data::Tensor(tensor) => {
            let (_, texts) = texts(tensor).map_err(|error| BadValue::new(error.to_string()))?;
            if texts.is_empty() { Err(BadValue::new("tensor without elements")) } else { Ok(texts) }
        }
        _ => Err(BadValue::new("no value")),
    }
}

fn tensor_file(tensor: &TensorProto) -> Result<(&'static str, Bytes), BadValue> {
    const RESOURCE: i32 = 20;
    const VARIANT: i32 = 21;
    if matches!(tensor.dtype, RESOURCE | VARIANT) && tensor.tensor_content.is_empty() {
        // Their fields are not even decoded, so that the message would be empty.
        return Err(BadValue::new(format!("tensor of type {}, whose elements are no data", tensor.dtype)));
    }
    if let Some(file) = npy(tensor) {
        return Ok(("npy", file));
    }
    Ok(match json(tensor) {
        Some(text) => ("json", text),
        None => ("pb", tensor.encode_to_vec().into()),
    })
}

/// Texts, nested as their shape says; `None` for anything else, also for texts that are not UTF-8.
fn json(tensor: &TensorProto) -> Option<Bytes> {
    let (shape, texts) = texts(tensor).ok()?;
    let texts: Option<Vec<Json>> = texts.iter().map(|text| Some(str::from_utf8(text).ok()?.into())).collect();
    let nested = shape.iter().rev().try_fold(texts?, |items, size| rows(items, *size));
    let mut text = Vec::new();
    match nested?.as_slice() {
        [one] => one.write(&mut text),
        _ => return None,
    }
    Some(text.into())
}

/// Puts items together to rows of so many; `None` for rows of none, which cannot be counted.
fn rows(items: Vec<Json>, size: usize) -> Option<Vec<Json>> {
    let mut rows = Vec::with_capacity(items.len().checked_div(size)?);
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        rows.push(Json::Array(items.by_ref().take(size).collect()));
    }
    Some(rows)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::convert::kinds::Names;
    use crate::proto::tensorboard::TensorShapeProto;
    use crate::proto::tensorboard::tensor_shape_proto::Dim;
    use crate::tfevents::event::Metadata;

    fn texts_tensor(sizes: &[i64], texts: &[&[u8]]) -> TensorProto {
        let dim = sizes.iter().map(|&size| Dim { size, ..Default::default() }).collect();
        TensorProto {
            dtype: 7,
            tensor_shape: Some(TensorShapeProto { dim, unknown_rank: false }),
            string_val: texts.iter().map(|text| Bytes::copy_from_slice(text)).collect(),
            ..Default::default()
        }
    }

    fn carried(kind: &ValueKind, data: Data, plugin_content: &'static [u8]) -> Result<Vec<CarriedFile>, BadValue> {
        let metadata = Metadata { plugin_content: plugin_content.into(), ..Metadata::default() };
        let value = Value { tag: "a/b".into(), metadata: Some(metadata), data };
        let carried = carry(&Subject { tag: "a/b", key: "x/a/b", step: 7, names: Names::Sha256 }, kind, &value)?;
        assert_eq!(carried, Carried { files: carried.files.clone(), ..Carried::default() });
        Ok(carried.files)
    }

    fn check(tensor: TensorProto, start: &str, end: &str, content: &[u8]) {
        let files = carried(&ValueKind::Tensors, Data::Tensor(Box::new(tensor)), b"").unwrap();
        let [file] = files.as_slice() else { unreachable!("{files:?}") };
        assert!(file.path.starts_with(start) && file.path.ends_with(end), "{}", file.path);
        assert!(content.is_empty() || file.content == content, "{:?}", file.content);
    }

    #[test]
    fn a_tensor_is_kept_as_what_can_be_opened() {
        let numbers = TensorProto { dtype: 1, float_val: vec![1.5], ..Default::default() };
        check(numbers.clone(), "tensorboard/tensors/a_b-7-", ".npy", b"");
        check(texts_tensor(&[], &[b"x"]), "tensorboard/tensors/a_b-7-", ".json", br#""x""#);
        check(texts_tensor(&[2, 1], &[b"x", b"\""]), "", ".json", br#"[["x"],["\""]]"#);
        // What neither form can hold.
        for odd in [
            texts_tensor(&[1], &[b"\xff"]),
            texts_tensor(&[3], &[b"x"]),
            texts_tensor(&[0], &[]),
            TensorProto { dtype: 1, ..Default::default() },
            TensorProto { dtype: 24, float8_val: vec![1].into(), ..Default::default() },
        ] {
            check(odd.clone(), "", ".pb", &odd.encode_to_vec());
        }
        let resource = Data::Tensor(Box::new(TensorProto { dtype: 20, ..Default::default() }));
        assert!(carried(&ValueKind::Tensors, resource, b"").is_err());
    }

    #[test]
    fn a_plugin_of_its_own_keeps_all_that_it_says() {
        let kind = ValueKind::Plugin("../my plugin".into());
        let number = || Data::Tensor(Box::new(TensorProto { dtype: 1, float_val: vec![1.5], ..Default::default() }));
        let paths = |data, content| -> Vec<String> {
            let files = carried(&kind, data, content).unwrap();
            files.iter().map(|file| file.path.clone()).collect()
        };
        let both = paths(number(), b"about");
        assert_eq!(both.len(), 2);
        assert!(both[0].starts_with("tensorboard/.._my_plugin/a_b-7-"), "{both:?}");
        assert!(both[1].starts_with("tensorboard/.._my_plugin/a_b-") && both[1].ends_with(".plugin.pb"), "{both:?}");
        assert_eq!(paths(number(), b"{}").len(), 1);
        assert_eq!(paths(Data::None, b"about")[..], both[1..]);
        assert_eq!(carried(&kind, Data::None, b""), Err(BadValue::new("no value")));
    }

    #[test]
    fn the_step_survives_a_long_tag() {
        let value = Value { tag: Bytes::new(), metadata: None, data: Data::OldHistogram("x".into()) };
        let tag = "x".repeat(1000);
        let subject = Subject { tag: &tag, key: &tag, step: i64::MIN, names: Names::Sha256 };
        let carried = carry(&subject, &ValueKind::OldHistograms, &value).unwrap();
        let path = &carried.files[0].path;
        assert!(path.starts_with("tensorboard/obsolete_histograms/xxx"), "{path}");
        assert!(path.contains("x--9223372036854775808-") && path.ends_with(".bin"), "{path}");
    }
}
