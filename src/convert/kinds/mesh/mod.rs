//! Three-dimensional bodies: parts in tags of their own, put together when their row is whole.
//!
//! A body with faces becomes a binary glTF, the one form with colors by vertex that W&B's viewer draws; without faces it
//! is a point cloud as the official client writes it. A batch of several bodies is a list of them. The camera and the
//! materials that a writer asks of TensorBoard's own viewer are not carried.

mod body;
mod glb;
mod part;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use crate::convert::kinds::mesh::part::MeshPart;

use crate::convert::kinds::mesh::body::Bodies;
use crate::convert::kinds::{BadValue, Carried, CarriedFile, Cell, Names, Subject, media_value};
use crate::model::Json;
use crate::tfevents::event::Value;

pub(super) fn carry(subject: &Subject<'_>, value: &Value) -> Result<Carried, BadValue> {
    let part = MeshPart::of(subject, value)?;
    Ok(Carried { cell: Some(Cell::MeshPart(Box::new(part))), ..Carried::default() })
}

/// The key of the body that a part belongs to.
pub(super) fn body_key(subject: &Subject<'_>, value: &Value) -> Option<String> {
    MeshPart::place(subject, value).map(|(body, _)| body)
}

/// A body that was put together.
#[derive(Debug, Clone, PartialEq)]
pub struct Assembled {
    /// Its key in the run's history.
    pub key: String,
    /// Its history value, and the files that it speaks of; or why its parts make no body.
    pub body: Result<(Json, Vec<CarriedFile>), BadValue>,
    /// How many parts went into it.
    pub parts: u64,
}

/// Puts the parts of one row together. Each comes with the key that its tag has in the run.
pub fn assemble(parts: Vec<(Arc<str>, MeshPart)>) -> Vec<Assembled> {
    let mut bodies: BTreeMap<String, Vec<MeshPart>> = BTreeMap::new();
    for (_, mut part) in parts {
        bodies.entry(std::mem::take(&mut part.body)).or_default().push(part);
    }
    let assembled = |(key, parts): (String, Vec<MeshPart>)| Assembled {
        key,
        parts: parts.len() as u64,
        body: Bodies::of(parts).and_then(|bodies| value(&bodies)),
    };
    bodies.into_iter().map(assembled).collect()
}

fn value(bodies: &Bodies) -> Result<(Json, Vec<CarriedFile>), BadValue> {
    let mut files: Vec<CarriedFile> = Vec::new();
    let mut objects = Vec::new();
    let mut names = Vec::new();
    for index in 0..bodies.count() {
        let (extension, content) = bodies.file(index)?;
        let (file, digested) = CarriedFile::media(DIRECTORY, extension, content.into(), Names::Sha256);
        objects.push(Json::Object(media_value("object3D-file", &file, &digested)));
        names.push(Json::from(file.path.rsplit('/').next().unwrap_or_default()));
        if files.iter().all(|other| other.path != file.path) {
            files.push(file);
        }
    }
    if objects.len() == 1 {
        return Ok((objects.swap_remove(0), files));
    }
    let list = Json::from([
        ("_type", Json::from("object3D")),
        ("count", Json::from(i64::try_from(objects.len()).unwrap_or(i64::MAX))),
        // Relative to the directory of their kind, other than in lists of images.
        ("filenames", Json::Array(names)),
        ("objects", Json::Array(objects)),
    ]);
    Ok((list, files))
}

/// Below `media/`.
const DIRECTORY: &str = "object3D";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use bytes::Bytes;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::convert::kinds::fixture;
    use crate::proto::tensorboard::tensor_shape_proto::Dim;
    use crate::proto::tensorboard::{MeshPluginData, TensorProto, TensorShapeProto};
    use crate::tfevents::event::{Data, Metadata};

    const CORNERS: &[f32] = &[0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.5, 0.1];
    const COLORS: &[f32] = &[255.0, 0.0, 0.0, 0.0, 254.9, -3.0, 7.0, 8.0, 999.0];

    fn value(content_type: i32, sizes: &[i64], float_val: &[f32]) -> Value {
        let dim = sizes.iter().map(|&size| Dim { size, ..Default::default() }).collect();
        let tensor_shape = Some(TensorShapeProto { dim, unknown_rank: false });
        let tensor = TensorProto { dtype: 1, tensor_shape, float_val: float_val.to_vec(), ..Default::default() };
        let content = MeshPluginData { name: "m".into(), content_type, ..Default::default() }.encode_to_vec();
        let metadata = Metadata { plugin_content: content.into(), ..Default::default() };
        Value { tag: Bytes::new(), metadata: Some(metadata), data: Data::Tensor(Box::new(tensor)) }
    }

    fn part(tag: &str, value: &Value) -> Result<(Arc<str>, MeshPart), BadValue> {
        let carried = carry(&Subject { tag, key: tag, step: 0, names: Names::Sha256 }, value)?;
        let Some(Cell::MeshPart(part)) = carried.cell else { panic!("no part") };
        Ok((tag.into(), *part))
    }

    /// Parts of the body `m`: what each is, its shape, its numbers.
    fn body(parts: &[(i32, &[i64], &[f32])]) -> Result<(Json, Vec<CarriedFile>), BadValue> {
        let tag = |kind: i32| format!("m_{kind}");
        let parts = parts.iter().map(|(kind, sizes, numbers)| part(&tag(*kind), &value(*kind, sizes, numbers)));
        let mut assembled = assemble(parts.collect::<Result<_, _>>()?);
        assert_eq!(assembled.len(), 1);
        let Assembled { key, body, .. } = assembled.swap_remove(0);
        assert_eq!(key, "m");
        body
    }

    fn cloud(parts: &[(i32, &[i64], &[f32])]) -> String {
        let (value, files) = body(parts).unwrap();
        let [file] = files.as_slice() else { panic!("{files:?}") };
        assert_eq!(value.get("_type"), Some(&Json::from("object3D-file")));
        assert!(file.path.starts_with("media/object3D/") && file.path.ends_with(".pts.json"), "{}", file.path);
        String::from_utf8(file.content.to_vec()).unwrap()
    }

    fn refused(parts: &[(i32, &[i64], &[f32])], why: &str) {
        assert_eq!(body(parts).unwrap_err().to_string(), why);
    }

    /// What a binary glTF says of itself, and its numbers.
    fn read(file: &[u8]) -> (Json, &[u8]) {
        let word = |at: usize| u32::from_le_bytes(*file[at..].first_chunk().unwrap()) as usize;
        assert_eq!((&file[..4], word(4), word(8)), (b"glTF".as_slice(), 2, file.len()));
        let text = word(12);
        assert_eq!((&file[16..20], text % 4), (b"JSON".as_slice(), 0));
        assert_eq!((word(20 + text), &file[24 + text..28 + text]), (file.len() - 28 - text, b"BIN\0".as_slice()));
        (Json::parse(std::str::from_utf8(&file[20..20 + text]).unwrap()).unwrap(), &file[28 + text..])
    }

    const TRIANGLE: &str = concat!(
        r#"{"accessors":[{"bufferView":0,"componentType":5126,"count":3,"max":[1,1,0],"min":[0,0,0],"type":"VEC3"},"#,
        r#"{"bufferView":1,"componentType":5126,"count":3,"type":"VEC3"},"#,
        r#"{"bufferView":2,"componentType":5125,"count":3,"type":"SCALAR"}],"asset":{"version":"2.0"},"#,
        r#""bufferViews":[{"buffer":0,"byteLength":36,"byteOffset":0,"target":34962},"#,
        r#"{"buffer":0,"byteLength":36,"byteOffset":36,"target":34962},"#,
        r#"{"buffer":0,"byteLength":12,"byteOffset":72,"target":34963}],"buffers":[{"byteLength":84}],"#,
        r#""materials":[{"doubleSided":true,"pbrMetallicRoughness":{"metallicFactor":0,"roughnessFactor":1}}],"#,
        r#""meshes":[{"primitives":[{"attributes":{"NORMAL":1,"POSITION":0},"indices":2,"material":0}]}],"#,
        r#""nodes":[{"mesh":0}],"scene":0,"scenes":[{"nodes":[0]}]}"#
    );

    #[test]
    fn parts_of_real_writers_make_a_body() {
        for file in fixture::MIXED {
            let values = fixture::values(file, "triangle");
            let parts: Vec<_> = values
                .into_iter()
                .map(|(step, value)| {
                    let tag = String::from_utf8(value.tag.to_vec()).unwrap();
                    let key = format!("run/{tag}");
                    let carried = carry(&Subject { tag: &tag, key: &key, step, names: Names::Sha256 }, &value).unwrap();
                    let Some(Cell::MeshPart(part)) = carried.cell else { panic!("no part") };
                    (Arc::from(key), *part)
                })
                .collect();
            let mut assembled = assemble(parts);
            let Assembled { key, body, parts } = assembled.pop().unwrap();
            assert_eq!((key.as_str(), parts, assembled.len()), ("run/triangle", 2, 0));
            let (value, files) = body.unwrap();
            let [file] = files.as_slice() else { panic!("{files:?}") };
            assert_eq!(value.get("path"), Some(&Json::from(file.path.as_str())));
            assert!(file.path.ends_with(".glb"));
            let (description, numbers) = read(&file.content);
            let corners: Vec<u8> =
                [0.0_f32, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0].iter().flat_map(|n| n.to_le_bytes()).collect();
            let indices: Vec<u8> = [0_u32, 1, 2].iter().flat_map(|n| n.to_le_bytes()).collect();
            assert!(numbers.starts_with(&corners) && numbers.ends_with(&indices));
            assert_eq!(description.to_string(), TRIANGLE);
        }
    }

    #[test]
    fn points_without_faces_are_a_cloud() {
        assert_eq!(cloud(&[(1, &[1, 3, 3], CORNERS)]), "[[0,0,0],[1,0,0],[0,1.5,0.1]]");
        // Without a batch, too.
        assert_eq!(cloud(&[(1, &[3, 3], CORNERS)]), "[[0,0,0],[1,0,0],[0,1.5,0.1]]");
        assert_eq!(
            cloud(&[(3, &[1, 3, 3], COLORS), (1, &[1, 3, 3], CORNERS), (2, &[1, 0, 3], &[])]),
            "[[0,0,0,255,0,0],[1,0,0,0,254,0],[0,1.5,0.1,7,8,255]]"
        );
        let somewhere = &[0.0, 0.0, 0.0, f32::NAN, 0.0, 0.0, 0.0, 1.5, f32::INFINITY];
        assert_eq!(cloud(&[(1, &[1, 3, 3], somewhere), (3, &[1, 3, 3], COLORS)]), "[[0,0,0,255,0,0]]");
    }

    #[test]
    fn faces_have_the_colors_of_their_vertices() {
        let parts: &[(i32, &[i64], &[f32])] =
            &[(1, &[1, 3, 3], CORNERS), (2, &[1, 2, 3], &[0.0, 1.0, 2.0, 2.0, 1.0, 0.0]), (3, &[1, 3, 3], COLORS)];
        let (_, files) = body(parts).unwrap();
        let (description, numbers) = read(&files.first().unwrap().content);
        assert!(description.to_string().contains("COLOR_0"));
        // Behind positions and normals of 12 bytes a vertex.
        assert_eq!(numbers[72..80], [255, 255, 0, 0, 0, 0, 255, 255]);
        assert_eq!(numbers.len(), 3 * (12 + 12 + 8) + 6 * 4);
    }

    #[test]
    fn a_batch_is_a_list() {
        let two: Vec<f32> = CORNERS.iter().chain(COLORS).copied().collect();
        let (value, files) = body(&[(1, &[2, 3, 3], &two), (3, &[1, 3, 3], COLORS)]).unwrap();
        assert_eq!(files.len(), 2);
        assert_eq!(value.get("_type"), Some(&Json::from("object3D")));
        assert_eq!(value.get("count"), Some(&Json::from(2)));
        let names: Vec<&str> = files.iter().map(|file| file.path.strip_prefix("media/object3D/").unwrap()).collect();
        assert_eq!(value.get("filenames"), Some(&Json::from(names)));
        // Equal bodies are one file.
        let (value, files) = body(&[(1, &[2, 1, 3, 3], &[CORNERS, CORNERS].concat())]).unwrap();
        assert_eq!((files.len(), value.get("count")), (1, Some(&Json::from(2))));
    }

    #[test]
    fn what_makes_no_body() {
        let corners: (i32, &[i64], &[f32]) = (1, &[1, 3, 3], CORNERS);
        refused(&[(2, &[1, 1, 3], &[0.0, 1.0, 2.0])], "a body without vertices");
        refused(&[(1, &[1, 0, 3], &[])], "a body without vertices");
        refused(&[(1, &[0, 1 << 40, 3], &[])], "a body without vertices");
        refused(&[corners, corners], "a body with two parts of vertices");
        refused(&[corners, (3, &[1, 2, 3], &[0.0; 6])], "2 colors for 3 vertices");
        refused(&[corners, (3, &[2, 3, 3], &[0.0; 18])], "colors of 2 bodies for the vertices of 1");
        for (corner, text) in
            [(3.0, "3"), (-1.0, "-1"), (0.5, "0.5"), (f32::NAN, "NaN"), (1e30, "1000000015047466200000000000000")]
        {
            let why = format!("a face with the corner {text} of 3 vertices");
            refused(&[corners, (2, &[1, 1, 3], &[0.0, 1.0, corner])], &why);
        }
        refused(&[(1, &[1, 1, 3], &[f32::NAN; 3])], "a point cloud without a point that is anywhere");
        refused(
            &[(1, &[1, 1, 3], &[f32::NAN; 3]), (2, &[1, 1, 3], &[0.0; 3])],
            "a body without a face that is anywhere",
        );
        refused(&[(1, &[1, 3, 2], &[0.0; 6])], "a part of shape [1, 3, 2], which is not rows of 3");
        refused(&[(1, &[3], &[0.0; 3])], "a part of shape [3], which is not rows of 3");
        refused(&[(1, &[2000, 1, 3], &[0.0; 6000])], "a batch of 2000 bodies; 1024 are the most");
        let unknown = part("m", &value(0, &[1, 3, 3], CORNERS)).unwrap_err();
        assert_eq!(unknown.to_string(), "a part of a body that does not say which part it is");
    }

    #[test]
    fn bodies_of_one_row_stay_apart() {
        let part = |tag: &str, kind| part(tag, &Value { metadata: None, ..value(kind, &[1, 3, 3], CORNERS) }).unwrap();
        let assembled = assemble(vec![part("b_VERTEX", 1), part("a_1", 1), part("b_COLOR", 3), part("c_FACE", 2)]);
        let found: Vec<_> = assembled.iter().map(|body| (body.key.as_str(), body.parts, body.body.is_ok())).collect();
        assert_eq!(found, [("a", 1, true), ("b", 2, true), ("c", 1, false)]);
    }

    proptest! {
        #[test]
        fn any_parts_are_survived(
            parts in proptest::collection::vec(
                (
                    0..5,
                    proptest::collection::vec(prop_oneof![Just(3), 0..4_i64, any::<i64>()], 0..4),
                    proptest::collection::vec(prop_oneof![0..4_i32, any::<i32>()], 0..40),
                ),
                0..5,
            )
        ) {
            let mut taken = Vec::new();
            for (kind, sizes, numbers) in parts {
                let numbers: Vec<f32> = numbers.into_iter().map(|number| number as f32).collect();
                taken.extend(part(&format!("m_{kind}"), &value(kind, &sizes, &numbers)).ok());
            }
            for Assembled { body, .. } in assemble(taken) {
                if let Ok((value, files)) = body {
                    prop_assert!(value.get("_type").is_some() && !files.is_empty());
                }
            }
        }
    }
}
