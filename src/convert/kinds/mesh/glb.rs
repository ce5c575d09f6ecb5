//! Binary glTF 2.0: a header, a chunk of JSON that describes, and a chunk of numbers.
//!
//! <https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html#glb-file-format-specification>. Knows triangles with
//! colors by vertex, no more.

use crate::model::{Json, Number};

/// Writes triangles over vertices, with a normal for each vertex so that viewers can light it, and its color if there
/// are colors. All coordinates are finite, all corners are numbers of vertices, and there is a triangle.
pub(super) fn write(vertices: &[[f32; 3]], triangles: &[[u32; 3]], colors: Option<&[[u8; 3]]>) -> Vec<u8> {
    let mut buffer = Buffer::default();
    let bounds = [("min", bound(vertices, f32::min)), ("max", bound(vertices, f32::max))];
    let mut attributes = vec![
        ("POSITION", buffer.floats(vertices, bounds.to_vec())),
        ("NORMAL", buffer.floats(&normals(vertices, triangles), Vec::new())),
    ];
    attributes.extend(colors.map(|colors| ("COLOR_0", buffer.colors(colors))));
    let indices = buffer.indices(triangles);
    let attributes = attributes.into_iter().map(|(name, index)| (name.to_owned(), Json::from(index)));

    let primitive = Json::from([
        ("attributes", Json::Object(attributes.collect())),
        ("indices", Json::from(indices)),
        ("material", Json::from(0)),
    ]);
    // Without this, the body would be of metal and seen from one side alone.
    let surface = [("metallicFactor", Json::from(0)), ("roughnessFactor", Json::from(1))];
    let material = Json::from([("doubleSided", Json::from(true)), ("pbrMetallicRoughness", Json::from(surface))]);
    let one = |member: Json| Json::Array(vec![member]);
    let description = Json::from([
        ("asset", Json::from([("version", Json::from("2.0"))])),
        ("scene", Json::from(0)),
        ("scenes", one(Json::from([("nodes", one(Json::from(0)))]))),
        ("nodes", one(Json::from([("mesh", Json::from(0))]))),
        ("meshes", one(Json::from([("primitives", one(primitive))]))),
        ("materials", one(material)),
        ("buffers", one(Json::from([("byteLength", size(buffer.bytes.len()))]))),
        ("bufferViews", Json::Array(buffer.views)),
        ("accessors", Json::Array(buffer.accessors)),
    ]);
    let mut text = Vec::new();
    description.write(&mut text);
    container(text, buffer.bytes)
}

/// uint32 magic · uint32 version · uint32 length of all · chunks: uint32 length · uint32 type · data, padded to 4 bytes.
fn container(mut text: Vec<u8>, numbers: Vec<u8>) -> Vec<u8> {
    text.resize(text.len().next_multiple_of(4), b' ');
    // Parts are limited, so that all lengths fit. All numbers are of 4 bytes or 2 × 4.
    let word = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    let mut file = Vec::with_capacity(28 + text.len() + numbers.len());
    file.extend_from_slice(b"glTF");
    file.extend_from_slice(&word(2));
    file.extend_from_slice(&word(28 + text.len() + numbers.len()));
    for (kind, chunk) in [(b"JSON", text), (b"BIN\0", numbers)] {
        file.extend_from_slice(&word(chunk.len()));
        file.extend_from_slice(kind);
        file.extend_from_slice(&chunk);
    }
    file
}

/// The numbers, and where which of them are.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    views: Vec<Json>,
    accessors: Vec<Json>,
}

// Names that the format has for its numbers.
const FLOAT: i64 = 5126;
const UNSIGNED_SHORT: i64 = 5123;
const UNSIGNED_INT: i64 = 5125;
const ARRAY_BUFFER: i64 = 34962;
const ELEMENT_ARRAY_BUFFER: i64 = 34963;

impl Buffer {
    fn floats(&mut self, vectors: &[[f32; 3]], more: Vec<(&'static str, Json)>) -> i64 {
        let bytes = vectors.iter().flatten().flat_map(|number| number.to_le_bytes());
        self.add(bytes, vectors.len(), [("type", Json::from("VEC3")), ("componentType", Json::from(FLOAT))], more)
    }

    /// The format has light, not what screens are sent, so that 16 bits are needed to tell all bytes apart. The fourth
    /// number, opacity, is there for alignment.
    fn colors(&mut self, colors: &[[u8; 3]]) -> i64 {
        let light: Vec<[u8; 2]> = (0..=u8::MAX).map(|byte| light_of(byte).to_le_bytes()).collect();
        let light = |byte: &u8| light.get(usize::from(*byte)).copied().unwrap_or_default();
        let bytes = colors.iter().flat_map(|[red, green, blue]| [light(red), light(green), light(blue), [255; 2]]);
        let kind = [("type", Json::from("VEC4")), ("componentType", Json::from(UNSIGNED_SHORT))];
        self.add(bytes.flatten(), colors.len(), kind, vec![("normalized", Json::from(true))])
    }

    fn indices(&mut self, triangles: &[[u32; 3]]) -> i64 {
        let bytes = triangles.iter().flatten().flat_map(|corner| corner.to_le_bytes());
        let kind = [("type", Json::from("SCALAR")), ("componentType", Json::from(UNSIGNED_INT))];
        self.add(bytes, 3 * triangles.len(), kind, Vec::new())
    }

    /// Returns the index of the accessor.
    fn add(
        &mut self,
        bytes: impl Iterator<Item = u8>,
        count: usize,
        kind: [(&'static str, Json); 2],
        more: Vec<(&'static str, Json)>,
    ) -> i64 {
        let offset = self.bytes.len();
        self.bytes.extend(bytes);
        let index = i64::try_from(self.accessors.len()).unwrap_or(i64::MAX);
        let is_indices = kind.iter().any(|(_, value)| *value == Json::from("SCALAR"));
        self.views.push(Json::from([
            ("buffer", Json::from(0)),
            ("byteOffset", size(offset)),
            ("byteLength", size(self.bytes.len() - offset)),
            ("target", Json::from(if is_indices { ELEMENT_ARRAY_BUFFER } else { ARRAY_BUFFER })),
        ]));
        let members = [("bufferView", Json::from(index)), ("count", size(count))].into_iter().chain(kind).chain(more);
        self.accessors.push(Json::Object(members.map(|(name, value)| (name.to_owned(), value)).collect()));
        index
    }
}

fn size(number: usize) -> Json {
    Json::from(i64::try_from(number).unwrap_or(i64::MAX))
}

fn bound(vertices: &[[f32; 3]], of: fn(f32, f32) -> f32) -> Json {
    let first = vertices.first().copied().unwrap_or_default();
    let bound = vertices.iter().fold(first, |[x, y, z], vertex| [of(x, vertex[0]), of(y, vertex[1]), of(z, vertex[2])]);
    Json::Array(bound.into_iter().map(|number| Number::F32(number).into()).collect())
}

/// The direction that each vertex faces: that of its triangles, the larger ones more.
fn normals(vertices: &[[f32; 3]], triangles: &[[u32; 3]]) -> Vec<[f32; 3]> {
    let at = |corner: u32| vertices.get(corner as usize).copied().unwrap_or_default().map(f64::from);
    let mut sums = vec![[0.0; 3]; vertices.len()];
    for triangle in triangles {
        let [a, b, c] = triangle.map(at);
        let [u, v] = [b, c].map(|corner| [corner[0] - a[0], corner[1] - a[1], corner[2] - a[2]]);
        let cross = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
        for corner in triangle {
            if let Some(sum) = sums.get_mut(*corner as usize) {
                sum.iter_mut().zip(cross).for_each(|(sum, part)| *sum += part);
            }
        }
    }
    let unit = |[x, y, z]: [f64; 3]| {
        let length = (x * x + y * y + z * z).sqrt();
        // Vertices without a triangle, or with one that is a line, face the viewer.
        if length > 0.0 && length.is_finite() {
            [(x / length) as f32, (y / length) as f32, (z / length) as f32]
        } else {
            [0.0, 0.0, 1.0]
        }
    };
    sums.into_iter().map(unit).collect()
}

/// The light that a screen gives for a byte of sRGB, 65535 being the most.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 65535")]
fn light_of(byte: u8) -> u16 {
    let value = f64::from(byte) / 255.0;
    let light = if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) };
    (light * 65535.0).round() as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_color_has_its_own_light() {
        let light: Vec<u16> = (0..=u8::MAX).map(light_of).collect();
        assert_eq!((light.first(), light.last()), (Some(&0), Some(&65535)));
        assert!(light.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(light_of(188), 32957, "half of the light is no half of the byte");
    }

    #[test]
    fn normals_stand_on_triangles() {
        let corners = [[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [9.0, 9.0, 9.0]];
        assert_eq!(normals(&corners, &[[0, 1, 2]]), [[0.0, 0.0, 1.0]; 4]);
        assert_eq!(normals(&corners, &[[0, 2, 1]])[0], [0.0, 0.0, -1.0]);
        assert_eq!(normals(&[[f32::MAX; 3], [f32::MIN; 3], [0.0; 3]], &[[0, 1, 2]]).len(), 3);
    }
}
