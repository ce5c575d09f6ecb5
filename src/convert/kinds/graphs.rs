//! Graphs, Keras models and what was measured of executions: kept as they are.
//!
//! They are messages of TensorFlow's that are not looked into; a Keras model is JSON.

use crate::convert::kinds::{BadValue, Carried, CarriedFile, Subject, tensors};
use crate::model::Json;
use crate::tfevents::event::{Data, Graph, Value};

pub(super) fn carry(subject: &Subject<'_>, value: &Value) -> Result<Carried, BadValue> {
    let kept = |extension, content| CarriedFile::kept("graphs", subject.tag, extension, content, subject.names);
    let files = match &value.data {
        // The second extension says which message it is, so that a program that reads it need not guess.
        Data::Graph(Graph::Definition(bytes)) => vec![kept("graph.pb", bytes.clone())],
        Data::Graph(Graph::Meta(bytes)) => vec![kept("metagraph.pb", bytes.clone())],
        Data::Graph(Graph::RunMetadata(bytes)) => vec![kept("run_metadata.pb", bytes.clone())],
        _ => {
            let texts = tensors::texts_of(value)?;
            let is_json = |text: &[u8]| str::from_utf8(text).is_ok_and(|text| Json::check(text).is_ok());
            let plugin = value.metadata.as_ref().map(|metadata| &*metadata.plugin_name).unwrap_or_default();
            // Which of the graph plugins wrote it may stand on an earlier value alone: JSON shows itself.
            let extension = |text: &[u8]| match plugin {
                b"graph_run_metadata" | b"graph_run_metadata_graph" => "run_metadata.pb",
                _ if is_json(text) => "json",
                _ => "pb",
            };
            texts.iter().map(|text| kept(extension(text), text.clone())).collect()
        }
    };
    Ok(Carried { files, ..Carried::default() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use bytes::Bytes;

    use super::*;
    use crate::convert::kinds::Names;
    use crate::proto::tensorboard::TensorProto;
    use crate::tfevents::event::Metadata;

    fn check(data: Data, plugin: &'static [u8], expected: &str, content: &str) {
        let metadata = Metadata { plugin_name: plugin.into(), ..Metadata::default() };
        let value = Value { tag: Bytes::new(), metadata: Some(metadata), data };
        let carried = carry(&Subject { tag: "keras", key: "keras", step: 0, names: Names::Sha256 }, &value).unwrap();
        let [file] = carried.files.as_slice() else { unreachable!("{carried:?}") };
        assert!(file.path.starts_with("tensorboard/graphs/keras-") && file.path.ends_with(expected), "{}", file.path);
        assert_eq!(file.content, content);
        assert_eq!(carried.cell, None);
    }

    fn text(text: &'static str) -> Data {
        Data::Tensor(Box::new(TensorProto { dtype: 7, string_val: vec![text.into()], ..Default::default() }))
    }

    #[test]
    fn graphs_are_kept_unchanged() {
        check(Data::Graph(Graph::Definition("g".into())), b"", ".graph.pb", "g");
        check(Data::Graph(Graph::Meta("g".into())), b"", ".metagraph.pb", "g");
        check(Data::Graph(Graph::RunMetadata("g".into())), b"", ".run_metadata.pb", "g");
        check(text("{ \"a\": NaN }"), b"graph_keras_model", ".json", "{ \"a\": NaN }");
        check(text("\n\u{1}"), b"graph_run_metadata", ".run_metadata.pb", "\n\u{1}");
        check(text("{"), b"", ".pb", "{");
    }

    #[test]
    fn what_is_no_text_is_no_graph() {
        for data in [Data::None, Data::Tensor(Box::new(TensorProto { dtype: 1, ..Default::default() }))] {
            let value = Value { tag: Bytes::new(), metadata: None, data };
            assert!(carry(&Subject { tag: "g", key: "g", step: 0, names: Names::Sha256 }, &value).is_err());
        }
    }
}
