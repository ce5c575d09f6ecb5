//! One part of a body: vertices, faces or colors, and which body they belong to.
//!
//! The metadata says what a part is and what its body is called; only a tag's first value may have it, and then the tag's
//! ending tells: `_VERTEX`, `_FACE`, `_COLOR`, or `_1`, `_2`, `_3` as tensorboardX writes.

use prost::Message;

use crate::convert::kinds::{BadValue, Subject};
use crate::model::Number;
use crate::proto::tensorboard::MeshPluginData;
use crate::tfevents::event::{Data, Value};
use crate::tfevents::tensor::{in_width, numbers};

/// The most numbers in a part: more than five million points.
const MAX_NUMBERS: usize = 16 << 20;

/// The most bodies in a batch: each is a file.
const MAX_BODIES: usize = 1024;

/// One part of a body, or of each body of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct MeshPart {
    /// The body's key in the run's history.
    pub(super) body: String,
    pub(super) content: Content,
    /// How many bodies.
    pub(super) bodies: usize,
    /// Threes of numbers in each body.
    pub(super) rows: usize,
    dtype: i32,
    numbers: Vec<f64>,
}

/// What a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// x, y, z.
    Vertices,
    /// Three numbers of vertices.
    Faces,
    /// Red, green and blue from 0 to 255, one for each vertex.
    Colors,
}

impl MeshPart {
    pub(super) fn of(subject: &Subject<'_>, value: &Value) -> Result<Self, BadValue> {
        let (body, content) = Self::place(subject, value)
            .ok_or_else(|| BadValue::new("a part of a body that does not say which part it is"))?;
        let Data::Tensor(tensor) = &value.data else { return Err(BadValue::new("a part that is not a tensor")) };
        let (shape, numbers) = numbers(tensor).map_err(|why| BadValue::new(why.to_string()))?;
        let Some((batch, &[rows, 3])) = shape.split_last_chunk::<2>() else {
            return Err(BadValue::new(format!("a part of shape {shape:?}, which is not rows of 3")));
        };
        if numbers.len() > MAX_NUMBERS {
            return Err(BadValue::new(format!("a part of {} numbers; {MAX_NUMBERS} are the most", numbers.len())));
        }
        let bodies = batch.iter().try_fold(1_usize, |product, size| product.checked_mul(*size)).unwrap_or(usize::MAX);
        if bodies > MAX_BODIES {
            return Err(BadValue::new(format!("a batch of {bodies} bodies; {MAX_BODIES} are the most")));
        }
        Ok(Self { body, content, bodies, rows, dtype: tensor.dtype, numbers })
    }

    /// The key of the body that a part belongs to, and which part it is, where anything says that.
    pub(super) fn place(subject: &Subject<'_>, value: &Value) -> Option<(String, Content)> {
        let metadata = value.metadata.as_ref();
        let content = metadata.map(|metadata| metadata.plugin_content.clone()).unwrap_or_default();
        // What cannot be read is no worse than what is not there: the tag tells as much.
        let metadata = MeshPluginData::decode(content).unwrap_or_default();
        let content = Content::of(metadata.content_type).or_else(|| Content::of_tag(subject.tag))?;
        Some((body_key(subject, &String::from_utf8_lossy(&metadata.name), content), content))
    }

    /// Whether it holds nothing, whatever its shape says.
    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The rows of one body of the batch; nothing is empty here. A part of one body stands for all.
    pub(super) fn rows(&self, body: usize) -> impl ExactSizeIterator<Item = [f64; 3]> {
        let body = if self.bodies == 1 { 0 } else { body };
        let from = body * self.rows * 3;
        let (rows, _) = self.numbers.get(from..from + self.rows * 3).unwrap_or_default().as_chunks();
        rows.iter().copied()
    }

    /// One of its numbers, with the width that its writer gave it.
    pub(super) fn number(&self, number: f64) -> Number {
        in_width(self.dtype, number)
    }
}

impl Content {
    const ALL: [Self; 3] = [Self::Vertices, Self::Faces, Self::Colors];

    /// As metadata numbers them.
    fn of(number: i32) -> Option<Self> {
        usize::try_from(number).ok()?.checked_sub(1).and_then(|index| Self::ALL.get(index)).copied()
    }

    fn of_tag(tag: &str) -> Option<Self> {
        let by_word = Self::ALL.into_iter().find(|content| content.without_word(tag).is_some());
        by_word.or_else(|| Self::ALL.into_iter().find(|content| tag.ends_with(content.endings().1)))
    }

    /// How tags end: as TensorBoard and torch write them, and as tensorboardX does.
    fn endings(self) -> (&'static str, &'static str) {
        match self {
            Self::Vertices => ("_VERTEX", "_1"),
            Self::Faces => ("_FACE", "_2"),
            Self::Colors => ("_COLOR", "_3"),
        }
    }

    /// A tag without the word for this part. TF1 numbers a name that it has seen already: `body_VERTEX_1`.
    fn without_word(self, tag: &str) -> Option<String> {
        let (word, _) = self.endings();
        let (body, number) = tag.rsplit_once(word)?;
        let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        (number.is_empty() || number.strip_prefix('_').is_some_and(is_number)).then(|| format!("{body}{number}"))
    }
}

/// The key of the body that a part belongs to: the key of the part's tag without what says which part it is. A tag that
/// does not end so belongs to the body that the metadata names.
fn body_key(subject: &Subject<'_>, name: &str, content: Content) -> String {
    // What the run's layout put before the tag stands before the body, too.
    let (before, tag) = match subject.key.strip_suffix(subject.tag) {
        Some(before) if !subject.tag.is_empty() => (before, subject.tag),
        _ => ("", subject.key),
    };
    let (_, digit) = content.endings();
    let by_digit = || {
        // Digits end other names as well, so that the name has to be right.
        let body = tag.strip_suffix(digit)?;
        (name.is_empty() || body.ends_with(name)).then(|| body.to_owned())
    };
    let body = if !name.is_empty() && tag == name { None } else { content.without_word(tag).or_else(by_digit) };
    let body = body.unwrap_or_else(|| if name.is_empty() { tag.to_owned() } else { name.to_owned() });
    let key = format!("{before}{body}");
    if key.is_empty() || key.ends_with('/') { key + "untitled" } else { key }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::kinds::Names;

    #[test]
    fn a_part_belongs_to_the_body_that_its_tag_names() {
        let check = |tag: &str, key: &str, name: &str, content, expected: &str| {
            let key = body_key(&Subject { tag, key, step: 0, names: Names::Sha256 }, name, content);
            assert_eq!(key, expected, "{tag}");
        };
        check("triangle_VERTEX", "triangle_VERTEX", "triangle", Content::Vertices, "triangle");
        check("triangle_FACE", "train/triangle_FACE", "triangle", Content::Faces, "train/triangle");
        check("triangle_2", "triangle_2", "triangle", Content::Faces, "triangle");
        // Without metadata.
        check("triangle_COLOR", "triangle_COLOR", "", Content::Colors, "triangle");
        check("triangle_3", "train/triangle_3", "", Content::Colors, "train/triangle");
        // In a scope, and the second of a name, as TF1 has them.
        check("scope/m_VERTEX", "scope/m_VERTEX", "m", Content::Vertices, "scope/m");
        check("scope/m_FACE_1", "scope/m_FACE_1", "m", Content::Faces, "scope/m_1");
        // Names that look like parts.
        check("m_1_VERTEX", "m_1_VERTEX", "m_1", Content::Vertices, "m_1");
        check("m_1", "m_1", "m", Content::Vertices, "m");
        check("m_1", "m_1", "m_1", Content::Vertices, "m_1");
        check("lidar_1", "run/lidar_1", "cloud", Content::Vertices, "run/cloud");
        check("points", "run/points", "cloud", Content::Vertices, "run/cloud");
        check("points", "points", "", Content::Vertices, "points");
        check("_VERTEX", "tb/_VERTEX", "", Content::Vertices, "tb/untitled");
        check("", "untitled", "", Content::Vertices, "untitled");
    }

    #[test]
    fn a_tag_tells_which_part_it_is() {
        for (tag, expected) in [
            ("m_VERTEX", Some(Content::Vertices)),
            ("m_FACE_1", Some(Content::Faces)),
            ("m_3", Some(Content::Colors)),
            ("m_4", None),
            ("VERTEX", None),
            ("", None),
        ] {
            assert_eq!(Content::of_tag(tag), expected, "{tag}");
        }
    }
}
