//! The bodies that parts make, each as a file.

use crate::convert::kinds::BadValue;
use crate::convert::kinds::mesh::glb;
use crate::convert::kinds::mesh::part::{Content, MeshPart};
use crate::model::Json;

/// The bodies of a batch; mostly one.
#[derive(Debug)]
pub(super) struct Bodies {
    vertices: MeshPart,
    faces: Option<MeshPart>,
    colors: Option<MeshPart>,
}

impl Bodies {
    /// Checks that the parts fit together.
    pub(super) fn of(parts: Vec<MeshPart>) -> Result<Self, BadValue> {
        let (mut vertices, mut faces, mut colors) = (None, None, None);
        for part in parts {
            let (place, name) = match part.content {
                Content::Vertices => (&mut vertices, "vertices"),
                Content::Faces => (&mut faces, "faces"),
                Content::Colors => (&mut colors, "colors"),
            };
            if place.replace(part).is_some() {
                return Err(BadValue::new(format!("a body with two parts of {name}")));
            }
        }
        let vertices = vertices.filter(|vertices: &MeshPart| !vertices.is_empty());
        let vertices = vertices.ok_or_else(|| BadValue::new("a body without vertices"))?;
        let faces = faces.filter(|faces| !faces.is_empty());
        let colors = colors.filter(|colors| !colors.is_empty());
        for (part, name) in [(&faces, "faces"), (&colors, "colors")] {
            if let Some(part) = part
                && part.bodies != 1
                && part.bodies != vertices.bodies
            {
                let (of, to) = (part.bodies, vertices.bodies);
                return Err(BadValue::new(format!("{name} of {of} bodies for the vertices of {to}")));
            }
        }
        if let Some(colors) = &colors
            && colors.rows != vertices.rows
        {
            return Err(BadValue::new(format!("{} colors for {} vertices", colors.rows, vertices.rows)));
        }
        Ok(Self { vertices, faces, colors })
    }

    /// How many.
    pub(super) fn count(&self) -> usize {
        self.vertices.bodies
    }

    /// One of them as a file: what its name ends in, and what it holds.
    pub(super) fn file(&self, index: usize) -> Result<(&'static str, Vec<u8>), BadValue> {
        let colors: Option<Vec<[u8; 3]>> =
            self.colors.as_ref().map(|colors| colors.rows(index).map(|color| color.map(color_byte)).collect());
        match &self.faces {
            None => Ok(("pts.json", self.point_cloud(index, colors.as_deref())?)),
            Some(faces) => Ok(("glb", self.solid(index, faces, colors.as_deref())?)),
        }
    }

    /// Points as rows of x, y and z, and of red, green and blue. A point that is not anywhere is left out: nobody can
    /// draw it, and it would keep W&B from reading the others.
    fn point_cloud(&self, index: usize, colors: Option<&[[u8; 3]]>) -> Result<Vec<u8>, BadValue> {
        let mut content = vec![b'['];
        for (number, point) in self.vertices.rows(index).enumerate() {
            if !point.iter().all(|coordinate| coordinate.is_finite()) {
                continue;
            }
            content.extend_from_slice(if content.len() > 1 { b",[" } else { b"[" });
            for (axis, coordinate) in point.into_iter().enumerate() {
                if axis > 0 {
                    content.push(b',');
                }
                self.vertices.number(coordinate).write_json(&mut content);
            }
            for byte in colors.and_then(|colors| colors.get(number)).into_iter().flatten() {
                content.push(b',');
                Json::from(i64::from(*byte)).write(&mut content);
            }
            content.push(b']');
        }
        if content.len() == 1 {
            return Err(BadValue::new("a point cloud without a point that is anywhere"));
        }
        content.push(b']');
        Ok(content)
    }

    /// Faces over vertices. A face with a corner that is not anywhere is left out.
    fn solid(&self, index: usize, faces: &MeshPart, colors: Option<&[[u8; 3]]>) -> Result<Vec<u8>, BadValue> {
        // Coordinates that no f32 can hold become infinite, and are not anywhere either.
        let vertices: Vec<[f32; 3]> =
            self.vertices.rows(index).map(|vertex| vertex.map(|coordinate| coordinate as f32)).collect();
        let mut triangles = Vec::with_capacity(faces.rows);
        for face in faces.rows(index) {
            let mut corners = [0; 3];
            let mut drawn = true;
            for (to, &number) in corners.iter_mut().zip(&face) {
                *to = vertex_number(number, vertices.len()).ok_or_else(|| {
                    BadValue::new(format!("a face with the corner {number} of {} vertices", vertices.len()))
                })?;
                let vertex = vertices.get(*to as usize);
                drawn &= vertex.is_some_and(|vertex| vertex.iter().all(|coordinate| coordinate.is_finite()));
            }
            if drawn {
                triangles.push(corners);
            }
        }
        if triangles.is_empty() {
            return Err(BadValue::new("a body without a face that is anywhere"));
        }
        // What is not anywhere has no face any more, and may be written anywhere.
        let anywhere = |vertex: [f32; 3]| if vertex.iter().all(|c| c.is_finite()) { vertex } else { [0.0; 3] };
        let vertices: Vec<[f32; 3]> = vertices.into_iter().map(anywhere).collect();
        Ok(glb::write(&vertices, &triangles, colors))
    }
}

/// A corner of a face; torch and tensorboardX write floats.
fn vertex_number(number: f64, vertices: usize) -> Option<u32> {
    let is_one = number >= 0.0 && number.fract() == 0.0 && number < vertices as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was found to be in the range")]
    is_one.then_some(number as u32)
}

/// As TensorBoard does: fractions are cut off. What is out of the range is brought into it, and NaN is 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats stop at the ends")]
fn color_byte(number: f64) -> u8 {
    number as u8
}
