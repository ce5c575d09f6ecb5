//! Meshes and point clouds: every vertex, face and color is in the file that the row speaks of.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{WRITERS, column, files, imported, paths, read_by_tensorboard, rows};
use crate::support::server::RunSnapshot;

/// The bodies of one value.
#[derive(Debug, Default, PartialEq)]
struct Bodies {
    /// One list for each body.
    vertices: Vec<Vec<[f64; 3]>>,
    faces: Vec<Vec<[f64; 3]>>,
    colors: Vec<Vec<[f64; 3]>>,
}

fn triple(value: &Value) -> [f64; 3] {
    let numbers: Vec<f64> = value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect();
    numbers.try_into().unwrap()
}

fn triples(values: &Value) -> Vec<Vec<[f64; 3]>> {
    values.as_array().unwrap().iter().map(|list| list.as_array().unwrap().iter().map(triple).collect()).collect()
}

/// What TensorBoard reads of a writer's bodies, by name and step.
fn bodies_of(writer: &str) -> BTreeMap<(&'static str, u64), Bodies> {
    let mut bodies: BTreeMap<_, Bodies> = BTreeMap::new();
    let tags = read_by_tensorboard()[writer]["tags"].as_object().unwrap();
    for point in tags.values().flat_map(|points| points.as_array().unwrap()).filter(|point| point["kind"] == "mesh") {
        let body = bodies.entry((point["name"].as_str().unwrap(), point["step"].as_u64().unwrap())).or_default();
        let part = match point["part"].as_str().unwrap() {
            "VERTEX" => &mut body.vertices,
            "FACE" => &mut body.faces,
            _ => &mut body.colors,
        };
        *part = triples(&point["values"]);
    }
    bodies
}

/// What a file holds: vertices, faces, colors.
fn read(run: &RunSnapshot, path: &str) -> [Vec<[f64; 3]>; 3] {
    let bytes = run.files[path].bytes.as_ref().unwrap();
    if path.ends_with(".pts.json") {
        let points: Vec<Vec<f64>> = serde_json::from_slice(bytes).unwrap();
        let colors = points.iter().filter(|point| point.len() == 6);
        let colors = colors.map(|point| point[3..].try_into().unwrap()).collect();
        return [points.iter().map(|point| point[..3].try_into().unwrap()).collect(), Vec::new(), colors];
    }
    assert!(path.ends_with(".glb"), "{path}");
    read_glb(bytes)
}

/// Reads a binary glTF of one mesh.
fn read_glb(bytes: &[u8]) -> [Vec<[f64; 3]>; 3] {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!((&bytes[..4], word(4), word(8)), (b"glTF".as_slice(), 2, bytes.len()));
    let text = word(12);
    assert_eq!(&bytes[16..20], b"JSON");
    let description: Value = serde_json::from_slice(&bytes[20..20 + text]).unwrap();
    assert_eq!(&bytes[24 + text..28 + text], b"BIN\0");
    let numbers = &bytes[28 + text..];

    let primitive = &description["meshes"][0]["primitives"][0];
    let elements = |accessor: &Value| -> Vec<f64> {
        let Some(index) = accessor.as_u64() else { return Vec::new() };
        let accessor = &description["accessors"][index as usize];
        let view = &description["bufferViews"][accessor["bufferView"].as_u64().unwrap() as usize];
        let at = |name: &str| view[name].as_u64().unwrap() as usize;
        let data = &numbers[at("byteOffset")..at("byteOffset") + at("byteLength")];
        match accessor["componentType"].as_u64().unwrap() {
            5126 => data.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap()).into()).collect(),
            5125 => data.chunks(4).map(|four| u32::from_le_bytes(four.try_into().unwrap()).into()).collect(),
            5123 => {
                data.chunks(2).map(|two| f64::from(u16::from_le_bytes(two.try_into().unwrap())) / 65535.0).collect()
            }
            other => panic!("{other}: {description}"),
        }
    };
    let triples = |numbers: Vec<f64>| numbers.chunks(3).map(|three| three.try_into().unwrap()).collect();
    let colors = elements(&primitive["attributes"]["COLOR_0"]);
    let colors = colors.chunks(4).map(|color| [color[0], color[1], color[2]].map(shown)).collect();
    [triples(elements(&primitive["attributes"]["POSITION"])), triples(elements(&primitive["indices"])), colors]
}

/// The byte that a screen is sent for an amount of light: the curve of sRGB.
fn shown(light: f64) -> f64 {
    let curve = if light <= 0.003_130_8 { 12.92 * light } else { 1.055 * light.powf(1.0 / 2.4) - 0.055 };
    (255.0 * curve).round()
}

#[test]
fn bodies_are_whole() {
    let (mut bodies, mut clouds, mut colored) = (0, 0, 0);
    for writer in WRITERS {
        let run = &imported().runs[writer];
        let mut keys = Vec::new();
        for ((name, step), body) in bodies_of(writer) {
            let what = format!("{writer}, `{name}` at {step}");
            let cells = column(run, name).into_iter().filter(|(at, _)| *at == step);
            let cells: Vec<Value> = cells.map(|(_, cell)| cell).collect();
            let [cell] = cells.as_slice() else { panic!("{what}: {cells:?}") };
            files(run, cell);
            let paths = paths(cell);
            let kind = if body.vertices.len() == 1 { "object3D-file" } else { "object3D" };
            assert_eq!((cell["_type"].as_str(), paths.len()), (Some(kind), body.vertices.len()), "{what}: {cell}");
            let mut arrived = Bodies::default();
            for path in &paths {
                let [vertices, faces, colors] = read(run, path);
                clouds += usize::from(faces.is_empty());
                colored += usize::from(!colors.is_empty());
                arrived.vertices.push(vertices);
                arrived.faces.extend(Some(faces).filter(|faces| !faces.is_empty()));
                arrived.colors.extend(Some(colors).filter(|colors| !colors.is_empty()));
                bodies += 1;
            }
            assert_eq!(arrived, body, "{what}");
            keys.push(name);
        }
        // No part stands in a row by itself.
        for key in rows(run).iter().flat_map(|row| row.as_object().unwrap().keys().cloned().collect::<Vec<_>>()) {
            let of_a_body = keys.iter().any(|name| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('_')));
            assert!(!of_a_body, "{writer}: `{key}`");
        }
    }
    assert_eq!((bodies, clouds, colored), (4 * 3 + 3 * 3, 3, 4 * 3 + 3 * 2));
}
