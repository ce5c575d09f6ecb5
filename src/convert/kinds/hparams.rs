//! Hyperparameters of a training session, what an experiment declares of them, and how the session ended.
//!
//! All of it stands in the plugin's own message, in the metadata; the tensor is empty. A session's values become config,
//! each under its own name as one key, typed as the writer typed it. What else the session says of itself (its group and
//! its links) goes under [`SESSION_KEY`], where it is in nobody's way. What an experiment declares (domains, display
//! names, descriptions, metrics) is no value of the run and is kept as a JSON file. The time of a session's start and
//! end is not carried: the run has both already.

use bytes::Bytes;
use prost::Message;

use crate::convert::kinds::{BadValue, Carried, CarriedFile, SessionEnd, Subject, lossy};
use crate::model::{Json, Number};
use crate::proto::tensorboard::dynamic_value::Kind;
use crate::proto::tensorboard::h_params_experiment::h_param_info::Domain;
use crate::proto::tensorboard::h_params_experiment::{HParamInfo, MetricInfo};
use crate::proto::tensorboard::h_params_plugin_data::Data;
use crate::proto::tensorboard::session_end_info::Status;
use crate::proto::tensorboard::{DynamicValue, HParamsExperiment, HParamsPluginData, SessionEndInfo, SessionStartInfo};
use crate::tfevents::event::Value;

/// The config key of what a session says besides its values: TensorBoard's own prefix, which no hyperparameter has.
const SESSION_KEY: &str = "_hparams_";

/// Messages above this size are not looked into: two bytes of one may take a hundred bytes of memory.
const MAX_MESSAGE: usize = 4 << 20;

pub(super) fn carry(subject: &Subject<'_>, value: &Value) -> Result<Carried, BadValue> {
    let content = value.metadata.as_ref().map(|metadata| metadata.plugin_content.clone()).unwrap_or_default();
    if content.len() > MAX_MESSAGE {
        return Err(BadValue::new(format!("hyperparameters of {} bytes, above {MAX_MESSAGE}", content.len())));
    }
    let data =
        HParamsPluginData::decode(content).map_err(|error| BadValue::new(format!("hyperparameters: {error}")))?;
    // A version other than 0 is not refused: whatever of it has today's form is read as such.
    match data.data {
        Some(Data::SessionStartInfo(start)) => Ok(Carried { config: session(start), ..Carried::default() }),
        Some(Data::SessionEndInfo(end)) => Ok(Carried { session: ended(&end), ..Carried::default() }),
        Some(Data::Experiment(experiment)) => {
            let mut text = Vec::new();
            experiment_json(&experiment).write(&mut text);
            let file = CarriedFile::kept("hparams", subject.tag, "json", text.into(), subject.names);
            Ok(Carried { files: vec![file], ..Carried::default() })
        }
        None => Err(BadValue::new("hyperparameters without any content")),
    }
}

fn session(start: SessionStartInfo) -> Vec<(Vec<String>, Json)> {
    let about = [("group_name", start.group_name), ("model_uri", start.model_uri), ("monitor_url", start.monitor_url)];
    let about = about.into_iter().filter(|(_, text)| !text.is_empty());
    let about = about.map(|(key, text)| (vec![SESSION_KEY.to_owned(), key.to_owned()], lossy(&text).into()));
    let values = start.hparams.into_iter().map(|entry| (vec![lossy(&entry.key)], dynamic(entry.value)));
    about.chain(values).collect()
}

fn ended(end: &SessionEndInfo) -> Option<SessionEnd> {
    match end.status() {
        Status::Success => Some(SessionEnd::Finished),
        Status::Failure => Some(SessionEnd::Failed),
        Status::Unknown | Status::Running => None,
    }
}

/// A value of any JSON type. The decoder has limited its depth.
fn dynamic(value: Option<DynamicValue>) -> Json {
    match value.and_then(|value| value.kind) {
        None | Some(Kind::Null(_)) => Json::Null,
        Some(Kind::Number(number)) => Json::Number(Number::F64(number)),
        Some(Kind::String(text)) => lossy(&text).into(),
        Some(Kind::Bool(value)) => Json::Bool(value),
        Some(Kind::Struct(members)) => {
            let member =
                |entry: crate::proto::tensorboard::dynamic_struct::Entry| (lossy(&entry.key), dynamic(entry.value));
            Json::Object(members.fields.into_iter().map(member).collect())
        }
        Some(Kind::List(items)) => Json::Array(items.values.into_iter().map(|item| dynamic(Some(item))).collect()),
    }
}

fn experiment_json(experiment: &HParamsExperiment) -> Json {
    let mut json =
        texts([("name", &experiment.name), ("description", &experiment.description), ("user", &experiment.user)]);
    if experiment.time_created_secs != 0.0 {
        json.set_path(&["time_created_secs"], Number::F64(experiment.time_created_secs).into());
    }
    json.set_path(&["hparams"], Json::Array(experiment.hparam_infos.iter().map(hparam_json).collect()));
    json.set_path(&["metrics"], Json::Array(experiment.metric_infos.iter().map(metric_json).collect()));
    json
}

fn hparam_json(info: &HParamInfo) -> Json {
    let mut json =
        texts([("name", &info.name), ("display_name", &info.display_name), ("description", &info.description)]);
    let kind = match info.r#type {
        1 => Some("string"),
        2 => Some("bool"),
        3 => Some("float64"),
        _ => None,
    };
    if let Some(kind) = kind {
        json.set_path(&["type"], kind.into());
    }
    match &info.domain {
        Some(Domain::DomainDiscrete(list)) => {
            let values = list.values.iter().map(|value| dynamic(Some(value.clone()))).collect();
            json.set_path(&["values"], Json::Array(values));
        }
        Some(Domain::DomainInterval(interval)) => {
            json.set_path(&["min"], Number::F64(interval.min_value).into());
            json.set_path(&["max"], Number::F64(interval.max_value).into());
        }
        None => {}
    }
    if info.differs {
        json.set_path(&["differs"], true.into());
    }
    json
}

fn metric_json(info: &MetricInfo) -> Json {
    let name = info.name.clone().unwrap_or_default();
    let mut json = texts([
        ("tag", &name.tag),
        ("group", &name.group),
        ("display_name", &info.display_name),
        ("description", &info.description),
    ]);
    let dataset = match info.dataset_type {
        1 => Some("training"),
        2 => Some("validation"),
        _ => None,
    };
    if let Some(dataset) = dataset {
        json.set_path(&["dataset"], dataset.into());
    }
    json
}

/// An object of the texts that are not empty.
fn texts<const N: usize>(members: [(&str, &Bytes); N]) -> Json {
    let told = members.into_iter().filter(|(_, text)| !text.is_empty());
    Json::Object(told.map(|(key, text)| (key.to_owned(), lossy(text).into())).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::convert::kinds::Names;
    use crate::proto::tensorboard::h_params_experiment::{Interval, MetricName};
    use crate::proto::tensorboard::session_start_info::Entry;
    use crate::proto::tensorboard::{DynamicList, DynamicStruct, dynamic_struct};
    use crate::tfevents::event::{Data as EventData, Metadata};

    fn carried(content: Vec<u8>) -> Result<Carried, BadValue> {
        let metadata = Metadata { plugin_content: content.into(), ..Metadata::default() };
        let value = Value { tag: Bytes::new(), metadata: Some(metadata), data: EventData::None };
        carry(&Subject { tag: "_hparams_/x", key: "_hparams_/x", step: 0, names: Names::Sha256 }, &value)
    }

    fn of(data: Data) -> Carried {
        // A version that is not known yet.
        carried(HParamsPluginData { version: 9, data: Some(data) }.encode_to_vec()).unwrap()
    }

    fn value(kind: Kind) -> DynamicValue {
        DynamicValue { kind: Some(kind) }
    }

    #[test]
    fn a_session_becomes_typed_config() {
        let entry = |key: &'static str, kind| Entry { key: key.into(), value: Some(value(kind)) };
        let member = dynamic_struct::Entry { key: "m".into(), value: Some(value(Kind::Number(0.5))) };
        let list = DynamicList { values: vec![value(Kind::Number(1.0)), DynamicValue { kind: None }] };
        let start = SessionStartInfo {
            hparams: vec![
                entry("model.depth", Kind::Number(3.0)),
                entry("lr", Kind::Number(0.1)),
                entry("nan", Kind::Number(f64::NAN)),
                entry("opt/name", Kind::String("adam".into())),
                entry("amp", Kind::Bool(true)),
                entry("none", Kind::Null(0)),
                entry("nested", Kind::Struct(DynamicStruct { fields: vec![member] })),
                entry("list", Kind::List(list)),
                Entry { key: "unset".into(), value: None },
            ],
            group_name: "g".into(),
            start_time_secs: 5.0,
            ..SessionStartInfo::default()
        };
        let carried = of(Data::SessionStartInfo(start));
        let config: Vec<String> =
            carried.config.iter().map(|(path, value)| format!("{}={value}", path.join("|"))).collect();
        assert_eq!(
            config,
            [
                "_hparams_|group_name=\"g\"",
                "model.depth=3",
                "lr=0.1",
                "nan=NaN",
                "opt/name=\"adam\"",
                "amp=true",
                "none=null",
                "nested={\"m\":0.5}",
                "list=[1,null]",
                "unset=null",
            ]
        );
        assert_eq!((carried.cell, carried.session, carried.files), (None, None, vec![]));
    }

    #[test]
    fn a_session_says_how_it_ended() {
        for (status, expected) in [
            (Status::Success, Some(SessionEnd::Finished)),
            (Status::Failure, Some(SessionEnd::Failed)),
            (Status::Running, None),
            (Status::Unknown, None),
        ] {
            let end = SessionEndInfo { status: status.into(), end_time_secs: 1.0 };
            assert_eq!(of(Data::SessionEndInfo(end)), Carried { session: expected, ..Carried::default() });
        }
        let newer = SessionEndInfo { status: 77, end_time_secs: 1.0 };
        assert_eq!(of(Data::SessionEndInfo(newer)).session, None);
    }

    #[test]
    fn what_an_experiment_declares_is_kept() {
        let lr = HParamInfo {
            name: "lr".into(),
            display_name: "rate".into(),
            r#type: 3,
            domain: Some(Domain::DomainInterval(Interval { min_value: 0.0, max_value: 1.0 })),
            ..HParamInfo::default()
        };
        let values = vec![value(Kind::Bool(true)), value(Kind::Bool(false))];
        let amp = HParamInfo {
            name: "amp".into(),
            r#type: 2,
            domain: Some(Domain::DomainDiscrete(DynamicList { values })),
            ..HParamInfo::default()
        };
        let metric = MetricInfo {
            name: Some(MetricName { group: "val".into(), tag: "acc".into() }),
            dataset_type: 2,
            ..MetricInfo::default()
        };
        let experiment = HParamsExperiment {
            user: "u".into(),
            hparam_infos: vec![lr, amp],
            metric_infos: vec![metric],
            ..HParamsExperiment::default()
        };
        let carried = of(Data::Experiment(experiment));
        assert_eq!(carried.config, []);
        assert!(carried.files[0].path.starts_with("tensorboard/hparams/_hparams__x-"), "{}", carried.files[0].path);
        assert_eq!(
            carried.files[0].content,
            concat!(
                r#"{"hparams":[{"display_name":"rate","max":1,"min":0,"name":"lr","type":"float64"},"#,
                r#"{"name":"amp","type":"bool","values":[true,false]}],"#,
                r#""metrics":[{"dataset":"validation","group":"val","tag":"acc"}],"user":"u"}"#
            )
        );
    }

    #[test]
    fn what_says_nothing_is_bad() {
        for content in [vec![], vec![0x1a, 0x05, 0x0a], vec![0; MAX_MESSAGE + 1]] {
            assert!(carried(content).is_err());
        }
        let value = Value { tag: Bytes::new(), metadata: None, data: EventData::None };
        assert!(carry(&Subject { tag: "t", key: "t", step: 0, names: Names::Sha256 }, &value).is_err());
        // Lists in lists: the decoder ends it, not the stack.
        let mut nested = Vec::new();
        for _ in 0..1000 {
            let mut list = Vec::new();
            prost::encoding::bytes::encode(1, &nested, &mut list);
            nested.clear();
            prost::encoding::bytes::encode(6, &list, &mut nested);
        }
        let (mut entry, mut start, mut content) = (Vec::new(), Vec::new(), Vec::new());
        prost::encoding::bytes::encode(2, &nested, &mut entry);
        prost::encoding::bytes::encode(1, &entry, &mut start);
        prost::encoding::bytes::encode(3, &start, &mut content);
        assert!(carried(content).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let _ = carried(bytes);
        }
    }
}
