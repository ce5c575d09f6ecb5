//! Layouts of the custom scalars dashboard: kept as JSON that a person can read.

use bytes::Bytes;
use prost::Message;

use crate::convert::kinds::{BadValue, Carried, CarriedFile, Subject, lossy, tensors};
use crate::model::Json;
use crate::proto::tensorboard::CustomScalarsLayout;
use crate::proto::tensorboard::custom_scalars_layout::chart::Content;
use crate::proto::tensorboard::custom_scalars_layout::margin::Series;
use crate::proto::tensorboard::custom_scalars_layout::{Category, Chart};
use crate::tfevents::event::Value;

/// A layout above this size is kept as it is: two bytes of one may take a hundred bytes of memory.
const MAX_DECODED: usize = 4 << 20;

pub(super) fn carry(subject: &Subject<'_>, value: &Value) -> Result<Carried, BadValue> {
    let texts = tensors::texts_of(value)?;
    let files = texts.iter().map(|text| {
        let layout = Some(text).filter(|text| text.len() <= MAX_DECODED);
        match layout.and_then(|text| CustomScalarsLayout::decode(text.clone()).ok()) {
            Some(layout) => {
                let mut json = Vec::new();
                layout_json(&layout).write(&mut json);
                CarriedFile::kept("custom_scalars", subject.tag, "json", json.into(), subject.names)
            }
            None => CarriedFile::kept("custom_scalars", subject.tag, "pb", text.clone(), subject.names),
        }
    });
    Ok(Carried { files: files.collect(), ..Carried::default() })
}

fn layout_json(layout: &CustomScalarsLayout) -> Json {
    Json::from([("categories", layout.category.iter().map(category_json).collect::<Vec<_>>().into())])
}

fn category_json(category: &Category) -> Json {
    Json::from([
        ("title", text(&category.title)),
        ("closed", category.closed.into()),
        ("charts", category.chart.iter().map(chart_json).collect::<Vec<_>>().into()),
    ])
}

fn chart_json(chart: &Chart) -> Json {
    let mut json = Json::from([("title", text(&chart.title))]);
    match &chart.content {
        Some(Content::Multiline(lines)) => {
            json.set_path(&["multiline"], lines.tag.iter().map(text).collect::<Vec<_>>().into());
        }
        Some(Content::Margin(margin)) => {
            json.set_path(&["margin"], margin.series.iter().map(series_json).collect::<Vec<_>>().into());
        }
        None => {}
    }
    json
}

fn series_json(series: &Series) -> Json {
    Json::from([("value", text(&series.value)), ("lower", text(&series.lower)), ("upper", text(&series.upper))])
}

fn text(text: &Bytes) -> Json {
    lossy(text).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::convert::kinds::Names;
    use crate::proto::tensorboard::TensorProto;
    use crate::proto::tensorboard::custom_scalars_layout::{Margin, Multiline};
    use crate::tfevents::event::Data;

    fn carried(text: Vec<u8>) -> (String, Bytes) {
        let tensor = TensorProto { dtype: 7, string_val: vec![text.into()], ..Default::default() };
        let value = Value { tag: Bytes::new(), metadata: None, data: Data::Tensor(Box::new(tensor)) };
        let tag = "custom_scalars__config__";
        let carried = carry(&Subject { tag, key: tag, step: 0, names: Names::Sha256 }, &value).unwrap();
        (carried.files[0].path.clone(), carried.files[0].content.clone())
    }

    #[test]
    fn a_layout_can_be_read() {
        let chart = |title: &'static str, content| Chart { title: title.into(), content: Some(content) };
        let series = Series { value: "v".into(), lower: "l".into(), upper: "u".into() };
        let layout = CustomScalarsLayout {
            version: 0,
            category: vec![Category {
                title: "c".into(),
                chart: vec![
                    chart("m", Content::Multiline(Multiline { tag: vec!["loss/.*".into()] })),
                    chart("n", Content::Margin(Margin { series: vec![series] })),
                ],
                closed: true,
            }],
        };
        let (path, content) = carried(layout.encode_to_vec());
        assert!(path.starts_with("tensorboard/custom_scalars/custom_scalars__config__-") && path.ends_with(".json"));
        assert_eq!(
            content,
            concat!(
                r#"{"categories":[{"charts":[{"multiline":["loss/.*"],"title":"m"},"#,
                r#"{"margin":[{"lower":"l","upper":"u","value":"v"}],"title":"n"}],"closed":true,"title":"c"}]}"#
            )
        );
    }

    #[test]
    fn what_is_no_layout_is_kept_as_it_is() {
        let (path, content) = carried(b"\x12\x05x".to_vec());
        assert!(path.ends_with(".pb"), "{path}");
        assert_eq!(content, b"\x12\x05x".as_slice());
    }
}
