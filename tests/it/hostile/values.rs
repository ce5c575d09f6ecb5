//! Values whose shapes, sizes and nesting are not what their bytes can hold.

use bytes::Bytes;
use prost::Message as _;
use wandb_bridge::proto::tensorboard::summary::value::Value as Data;
use wandb_bridge::proto::tensorboard::summary::{self, Audio, Image};
use wandb_bridge::proto::tensorboard::tensor_shape_proto::Dim;
use wandb_bridge::proto::tensorboard::{
    DynamicList, DynamicValue, HParamsPluginData, HistogramProto, MeshPluginData, SessionStartInfo, TensorProto,
    TensorShapeProto, dynamic_value, h_params_plugin_data, session_start_info,
};

use super::{begun, check_good, check_peak, import, kind, skipped, value, value_with, values};
use crate::support::bridge::Place;

fn tensor(dtype: i32, sizes: &[i64]) -> TensorProto {
    let dim = sizes.iter().map(|&size| Dim { size, ..Dim::default() }).collect();
    TensorProto { dtype, tensor_shape: Some(TensorShapeProto { dim, unknown_rank: false }), ..TensorProto::default() }
}

fn floats(sizes: &[i64]) -> Data {
    Data::Tensor(TensorProto { float_val: vec![1.0], ..tensor(1, sizes) })
}

/// Appends each value as an event, and a good one behind them.
fn with(place: &Place, all: Vec<summary::Value>) -> u64 {
    let mut writer = begun(place);
    let count = all.len() as u64;
    for (step, value) in all.into_iter().enumerate() {
        writer.append(&[values(i64::try_from(step).unwrap(), vec![value])]);
    }
    writer.scalars("good", [(100, 1.0)]);
    count
}

#[test]
fn enormous_shapes_take_no_memory() {
    let shapes: [&[i64]; 9] = [
        &[1 << 40],
        &[1 << 31, 1 << 31],
        &[i64::MAX, i64::MAX, i64::MAX],
        &[-1],
        &[i64::MIN],
        &[1 << 40, 0],
        &[1 << 20, 3],
        &[6, 1 << 40],
        &[1, 1 << 60, 3],
    ];
    for plugin in ["scalars", "histograms", "pr_curves", "images", "audio", "text", "mesh", "custom_scalars"] {
        let content = MeshPluginData { name: "m".into(), content_type: 1, ..MeshPluginData::default() }.encode_to_vec();
        let place = Place::new();
        let mut all = Vec::new();
        for shape in shapes {
            all.push(value_with("t", plugin, content.clone(), Some(floats(shape))));
            let texts = TensorProto { string_val: vec![Bytes::from_static(b"x"); 3], ..tensor(7, shape) };
            all.push(value_with("t", plugin, content.clone(), Some(Data::Tensor(texts))));
            let raw = TensorProto { tensor_content: Bytes::from_static(&[0; 12]), ..tensor(1, shape) };
            all.push(value_with("t", plugin, content.clone(), Some(Data::Tensor(raw))));
        }
        let count = with(&place, all);
        let (ended, peak) = import(&place);
        check_peak(peak);
        let [read, sent, kept, lost] = kind(&ended, plugin);
        assert_eq!(read, sent + kept + lost, "{plugin}: {}", ended.stdout);
        let good = if plugin == "scalars" { sent } else { kind(&ended, "scalars")[1] };
        assert_eq!(good, 4, "{plugin}: {}", ended.stdout);
        // Some are nothing by their own account, and nothing is lost of them.
        assert_eq!(skipped(&ended, "value that makes no sense"), (lost, true), "{plugin}: {}", ended.stdout);
        assert!(lost > count / 2 && lost <= count, "{plugin}: {lost} of {count}");
        let _ = ended.code(3);
    }
}

#[test]
fn tensors_that_no_plugin_claims_are_kept_as_small_as_they_are() {
    let place = Place::new();
    let count = with(
        &place,
        vec![
            value("t", "", Some(floats(&[1 << 40, 7]))),
            value("t", "unknown", Some(floats(&[1 << 62, 1 << 62]))),
            value("t", "", Some(Data::Tensor(tensor(21, &[1 << 40])))),
            value("t", "tensors", Some(Data::Tensor(tensor(20, &[-5])))),
        ],
    );
    let (ended, peak) = import(&place);
    check_peak(peak);
    check_good(&ended, 4);
    let kinds: Vec<u64> = ["tensors", "unknown", "scalars"].map(|name| kind(&ended, name)[0]).to_vec();
    assert_eq!(kinds.iter().sum::<u64>(), count + 4, "{}", ended.stdout);
    let size: u64 = super::below(&place.path("out")).iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(size < 100_000, "{size} bytes were written");
}

#[test]
fn headers_of_media_are_not_believed() {
    let png = [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".as_slice(), &[0xff; 16]].concat();
    let gif = [b"GIF89a".as_slice(), &[0xff; 7], &[0x2c; 3000]].concat();
    let wav = [b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0".as_slice(), &[0xff; 16], b"data\xff\xff\xff\xff"].concat();
    let image = |bytes: &[u8]| {
        let encoded_image_string = Bytes::copy_from_slice(bytes);
        Data::Image(Image { width: i32::MAX, height: i32::MIN, colorspace: -1, encoded_image_string })
    };
    let audio = Audio {
        sample_rate: f32::NAN,
        num_channels: i64::MIN,
        length_frames: i64::MAX,
        encoded_audio_string: wav.into(),
        content_type: "../../x".into(),
    };
    let place = Place::new();
    with(
        &place,
        vec![
            value("i", "", Some(image(&png))),
            value("i", "", Some(image(&gif))),
            value("i", "", Some(image(b"no image"))),
            value("i", "", Some(image(b""))),
            value("a", "", Some(Data::Audio(audio))),
        ],
    );
    let (ended, peak) = import(&place);
    check_peak(peak);
    check_good(&ended, 4);
    assert_eq!(kind(&ended, "images"), [4, 2, 1, 1], "{}", ended.stdout);
    assert_eq!(kind(&ended, "audio"), [1, 1, 0, 0], "{}", ended.stdout);
    let _ = ended.code(3);
}

#[test]
fn histograms_of_a_million_buckets_become_small() {
    let buckets = |count: u32| {
        let bucket_limit = (0..count).map(f64::from).collect();
        let histogram = HistogramProto { bucket_limit, bucket: vec![1.0; count as usize], ..Default::default() };
        Data::Histo(HistogramProto { max: f64::INFINITY, min: f64::NEG_INFINITY, ..histogram })
    };
    let place = Place::new();
    with(&place, vec![value("h", "", Some(buckets(1_000_000)))]);
    let (ended, peak) = import(&place);
    check_peak(peak);
    assert_eq!(kind(&ended, "histograms"), [1, 1, 0, 0], "{}", ended.stdout);
    assert!(place.log().metadata().unwrap().len() < 100_000);
    // Ten million take more memory than any event may, and are refused before they are decoded.
    let place = Place::new();
    with(&place, vec![value("h", "", Some(buckets(10_000_000)))]);
    let (ended, peak) = import(&place);
    assert!(peak < BOUND_OF_160_MB, "{} MiB", peak >> 20);
    check_good(&ended, 4);
    assert_eq!(skipped(&ended, "damaged record"), (1, true), "{}", ended.stdout);
    let _ = ended.code(3);
}

/// A record that is really there is in memory once, and once more while it is read.
const BOUND_OF_160_MB: u64 = super::BOUND + 2 * (160 << 20);

#[test]
fn nesting_is_followed_only_so_far() {
    let mut nested = DynamicValue { kind: Some(dynamic_value::Kind::Number(1.0)) }.encode_to_vec();
    for _ in 0..5000 {
        // A list of one value, as bytes: a tree of so many levels could not even be dropped.
        let mut list = Vec::new();
        prost::encoding::bytes::encode(1, &nested, &mut list);
        let list_tag =
            DynamicValue { kind: Some(dynamic_value::Kind::List(DynamicList::default())) }.encode_to_vec()[0];
        nested = vec![list_tag];
        prost::encoding::encode_varint(list.len() as u64, &mut nested);
        nested.extend(list);
    }
    let mut entry = Vec::new();
    prost::encoding::string::encode(1, &"deep".to_owned(), &mut entry);
    prost::encoding::bytes::encode(2, &nested, &mut entry);
    let mut start = Vec::new();
    prost::encoding::bytes::encode(1, &entry, &mut start);
    let start_tag = h_params_plugin_data::Data::SessionStartInfo(SessionStartInfo::default());
    let tag = HParamsPluginData { version: 0, data: Some(start_tag) }.encode_to_vec()[0];
    let mut content = vec![tag];
    prost::encoding::encode_varint(start.len() as u64, &mut content);
    content.extend(start);
    let place = Place::new();
    with(&place, vec![value_with("_hparams_/session_start_info", "hparams", content, None)]);
    let (ended, peak) = import(&place);
    check_peak(peak);
    check_good(&ended, 4);
    assert_eq!(kind(&ended, "hparams"), [1, 0, 0, 1], "{}", ended.stdout);
    let _ = ended.code(3);
}

#[test]
fn a_million_hyperparameters_are_refused_and_a_hundred_thousand_are_not() {
    let session = |count: u32| {
        let entry = |number: u32| session_start_info::Entry {
            key: format!("h{number}").into(),
            value: Some(DynamicValue { kind: Some(dynamic_value::Kind::Number(f64::from(number))) }),
        };
        let start = SessionStartInfo { hparams: (0..count).map(entry).collect(), ..SessionStartInfo::default() };
        let data = Some(h_params_plugin_data::Data::SessionStartInfo(start));
        HParamsPluginData { version: 0, data }.encode_to_vec()
    };
    for (count, lost) in [(1_000_000, 1), (100_000, 0)] {
        let place = Place::new();
        with(&place, vec![value_with("_hparams_/session_start_info", "hparams", session(count), None)]);
        let (ended, peak) = import(&place);
        check_peak(peak);
        check_good(&ended, 4);
        assert_eq!(kind(&ended, "hparams"), [1, 1 - lost, 0, lost], "{}", ended.stdout);
        let _ = ended.code(if lost > 0 { 3 } else { 0 });
    }
}

#[test]
fn plugins_may_have_any_name_and_any_content() {
    let place = Place::new();
    let long = vec![b'p'; 1 << 20];
    let mut all: Vec<_> =
        [long, b"../../../x".to_vec(), b"a\0b\x1b[2J".to_vec(), b"\xff\xfe".to_vec(), b"CON".to_vec()]
            .into_iter()
            .map(|plugin| value_with("t", plugin, vec![7; 1 << 20], Some(floats(&[1]))))
            .collect();
    all.extend((0..3000).map(|number| value("t", format!("plugin {number}"), Some(floats(&[1])))));
    with(&place, all);
    let (ended, peak) = import(&place);
    check_peak(peak);
    check_good(&ended, 4);
    let summary = ended.ok().json_summary();
    let kinds = summary["kinds"].as_object().unwrap();
    let kept: u64 = kinds.values().map(|counts| counts["kept"].as_u64().unwrap()).sum();
    assert_eq!(kept, 3005, "{summary}");
    assert!(kinds.len() <= 1001 && kinds.keys().all(|name| name.len() <= 200), "{} kinds", kinds.len());
}

#[test]
fn texts_with_scripts_are_pages_without() {
    let place = Place::new();
    let texts = [
        "<script>alert(1)</script>",
        "[x](javascript:alert(1)) <img src=x onerror=alert(1)>",
        "<iframe src='data:text/html,<script>1</script>'></iframe>",
        "</title></style><script>1</script>",
        "\u{202e}\u{1b}[2J\0",
    ];
    let text = |text: &str| Data::Tensor(TensorProto { string_val: vec![text.to_owned().into()], ..tensor(7, &[]) });
    with(&place, texts.iter().map(|content| value("t", "text", Some(text(content)))).collect());
    let (ended, peak) = import(&place);
    check_peak(peak);
    assert_eq!(kind(&ended, "text"), [5, 5, 0, 0], "{}", ended.stdout);
    let pages = super::below(&place.log().parent().unwrap().join("files/media/html"));
    assert_eq!(pages.len(), 5);
    for page in pages {
        let page = std::fs::read_to_string(page).unwrap().to_lowercase();
        for active in ["<script", "<img", "<iframe", "href=\"javascript", "<svg", "<object"] {
            assert!(!page.contains(active), "{active} in {page}");
        }
    }
}

#[test]
fn any_time_and_any_step_is_a_row() {
    use wandb_bridge::proto::tensorboard::Event;
    let place = Place::new();
    let mut writer = begun(&place);
    let path = writer.path().to_owned();
    let steps = [i64::MIN, i64::MAX, -1, 0, i64::MIN];
    let times = [f64::NAN, f64::INFINITY, -1e300, 1e300, -0.0, f64::MIN_POSITIVE, -5.0];
    let numbers = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MIN_POSITIVE];
    let mut bytes = Vec::new();
    let mut count = 0;
    for step in steps {
        for wall_time in times {
            let number = numbers[count % numbers.len()];
            let event = crate::support::events::scalar(step, "odd", number);
            wandb_bridge::tfevents::write::write_event(&mut bytes, &Event { wall_time, ..event });
            count += 1;
        }
    }
    let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    std::io::Write::write_all(&mut file, &bytes).unwrap();
    writer.scalars("good", [(100, 1.0)]);
    let (ended, peak) = import(&place);
    check_peak(peak);
    check_good(&ended, 4 + count as u64);
    let _ = ended.ok();
}
