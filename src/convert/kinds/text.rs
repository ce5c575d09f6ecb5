//! Text: markdown, which becomes a page.
//!
//! One text is its own page, a vector of texts a table of one column, a matrix a table; of more dimensions every matrix
//! is shown, one after the other. The page also holds what was written, character by character, behind a line that opens
//! it: markdown joins lines, and a log that was never markdown is readable there. Nothing that a text says is ever active:
//! see [`markdown`]. Texts that are too long to be a page stay whole as a file, and the page says where.

mod markdown;

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;

use crate::convert::kinds::text::markdown::{Rendered, escape, render};
use crate::convert::kinds::{BadValue, Carried, CarriedFile, Cell, Subject, media_value};
use crate::model::Json;
use crate::tfevents::event::{Data, Value};
use crate::tfevents::tensor::texts;

/// Above this size the texts of one value are kept as a file, and the page shows how they begin.
const LARGE: usize = 4 << 20;

/// So much of them.
const BEGINNING: usize = 64 << 10;

pub(super) fn carry(subject: &Subject<'_>, value: &Value) -> Result<Carried, BadValue> {
    let Data::Tensor(tensor) = &value.data else { return Err(BadValue::new("text that is no tensor")) };
    let (shape, texts) = texts(tensor).map_err(|why| BadValue::new(format!("text in a {why}")))?;
    if texts.is_empty() {
        return Ok(Carried::default());
    }
    let mut files = Vec::new();
    // What a page costs beside the texts: tags around each, and headings that name every dimension.
    let beside = 32 + 4 * shape.len();
    let body = if texts.iter().fold(0_usize, |size, text| size.saturating_add(text.len() + beside)) > LARGE {
        let kept = kept(subject, &shape, texts);
        let body = beginning(&kept);
        files.push(kept);
        body
    } else {
        body(&shape, texts)
    };
    let (file, digested) = CarriedFile::media("html", "html", page(&body).into(), subject.names);
    let cell = Some(Cell::Json(Json::Object(media_value("html-file", &file, &digested))));
    files.push(file);
    Ok(Carried { cell, files, ..Carried::default() })
}

/// A complete document. Names nothing that is not in it, so that equal texts are equal files.
fn page(body: &str) -> String {
    const STYLE: &str = "body{font:14px/1.5 sans-serif;margin:8px;overflow-wrap:break-word}\
        table{border-collapse:collapse;margin:8px 0}td,th{border:1px solid #ccc;padding:2px 8px;vertical-align:top}\
        pre{background:#f5f5f5;padding:8px;white-space:pre-wrap}blockquote{border-left:3px solid #ccc;margin-left:0;\
        padding-left:12px}summary{color:#777;cursor:pointer}";
    // Links open beside the page and not in the small frame that shows it.
    format!(
        "<!DOCTYPE html>\n<html>\n<head>\n<meta charset=\"utf-8\">\n<title>Text</title>\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n<base target=\"_blank\">\n<style>{STYLE}</style>\n</head>\n\
         <body>\n{body}</body>\n</html>\n"
    )
}

/// Texts of ordinary size.
fn body(shape: &[usize], texts: &[Bytes]) -> String {
    let texts: Vec<Cleaned<'_>> = texts.iter().map(|text| Cleaned::of(text)).collect();
    let mut out = String::new();
    let mut any_markdown = false;
    let mut write = |text: &Cleaned<'_>, out: &mut String| {
        any_markdown |= render(&text.text, out) == Rendered::Markdown;
    };
    match (shape, texts.as_slice()) {
        // The only text of a vector, too: so the common writers make a text that is just one.
        ([] | [1], [text]) => write(text, &mut out),
        ([.., columns], all) if shape.len() > 1 => {
            let rows = shape.get(shape.len() - 2).copied().unwrap_or(1);
            for (index, matrix) in all.chunks(1.max(rows.saturating_mul(*columns))).enumerate() {
                if shape.len() > 2 {
                    let _ = writeln!(out, "<h4>{}</h4>", place(shape, index));
                }
                table(matrix, *columns, &mut write, &mut out);
            }
        }
        (_, all) => table(all, 1, &mut write, &mut out),
    }
    if any_markdown {
        out.push_str("<details><summary>As it was written</summary>\n");
        texts.iter().for_each(|text| preformatted(&text.text, &mut out));
        out.push_str("</details>\n");
    }
    let replaced = texts.iter().filter(|text| text.replaced).count();
    if replaced > 0 {
        let _ = writeln!(
            out,
            "<p><em>{replaced} of the texts here: not UTF-8, what cannot be read is shown as �.</em></p>"
        );
    }
    let zeros: usize = texts.iter().map(|text| text.zeros).sum();
    if zeros > 0 {
        let _ = writeln!(out, "<p><em>{zeros} zero bytes were left out.</em></p>");
    }
    out
}

fn table<'a>(
    cells: &[Cleaned<'a>],
    columns: usize,
    write: &mut impl FnMut(&Cleaned<'a>, &mut String),
    out: &mut String,
) {
    out.push_str("<table>\n<tbody>\n");
    for row in cells.chunks(1.max(columns)) {
        out.push_str("<tr>\n");
        for cell in row {
            out.push_str("<td>");
            write(cell, out);
            out.push_str("</td>\n");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>\n");
}

/// Where a matrix stands in an array, such as `[0, 2, :, :]`.
fn place(shape: &[usize], index: usize) -> String {
    let mut rest = index;
    let mut indices = Vec::with_capacity(shape.len());
    for &size in shape.iter().rev().skip(2) {
        indices.push((rest % 1.max(size)).to_string());
        rest /= 1.max(size);
    }
    indices.reverse();
    format!("[{}, :, :]", indices.join(", "))
}

/// Texts that are too large for a page, as a file: one as it is, several with their shape.
fn kept(subject: &Subject<'_>, shape: &[usize], texts: &[Bytes]) -> CarriedFile {
    if let [text] = texts {
        return CarriedFile::kept("text", subject.tag, "txt", text.clone(), subject.names);
    }
    let size = |size: &usize| Json::from(i64::try_from(*size).unwrap_or(i64::MAX));
    let texts: Vec<Json> = texts.iter().map(|text| Json::String(String::from_utf8_lossy(text).into_owned())).collect();
    let array = Json::from([("shape", Json::Array(shape.iter().map(size).collect())), ("texts", Json::Array(texts))]);
    let mut content = Vec::new();
    array.write(&mut content);
    CarriedFile::kept("text", subject.tag, "json", content.into(), subject.names)
}

fn beginning(kept: &CarriedFile) -> String {
    let size = kept.content.len();
    let head = kept.content.get(..BEGINNING).unwrap_or(&kept.content);
    // Not through the middle of a character.
    let end = (0..4)
        .map(|back| head.len().saturating_sub(back))
        .find(|&end| kept.content.get(end).is_none_or(|byte| byte & 0xc0 != 0x80));
    let head = head.get(..end.unwrap_or(head.len())).unwrap_or(head);
    let mut out = format!("<p><em>The first {} of {size} bytes; all of them are in <code>", head.len());
    escape(&kept.path, &mut out);
    out.push_str("</code>, a file of this run.</em></p>\n");
    preformatted(&Cleaned::of(head).text, &mut out);
    out
}

/// A text character by character.
fn preformatted(text: &str, out: &mut String) {
    // A line end right behind the tag would not count as part of the text, so there is always one that does not.
    out.push_str("<pre>\n");
    escape(text, out);
    out.push_str("</pre>\n");
}

/// A text as far as it is one.
struct Cleaned<'a> {
    text: Cow<'a, str>,
    /// Whether there were bytes that are no UTF-8.
    replaced: bool,
    /// How many zero bytes there were.
    zeros: usize,
}

impl<'a> Cleaned<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let replaced = matches!(text, Cow::Owned(_));
        let zeros = text.bytes().filter(|byte| *byte == 0).count();
        let text = if zeros == 0 { text } else { Cow::Owned(text.replace('\0', "")) };
        Self { text, replaced, zeros }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::convert::kinds::Names;
    use crate::proto::tensorboard::tensor_shape_proto::Dim;
    use crate::proto::tensorboard::{TensorProto, TensorShapeProto};

    fn carry_texts(sizes: &[i64], texts: &[&[u8]]) -> Result<Carried, BadValue> {
        let dim = sizes.iter().map(|&size| Dim { size, ..Default::default() }).collect();
        let string_val = texts.iter().map(|text| Bytes::copy_from_slice(text)).collect();
        let tensor_shape = Some(TensorShapeProto { dim, unknown_rank: false });
        let data = Data::Tensor(Box::new(TensorProto { dtype: 7, tensor_shape, string_val, ..Default::default() }));
        let subject = Subject { tag: "a note", key: "a note", step: 0, names: Names::Sha256 };
        carry(&subject, &Value { tag: Bytes::from_static(b"a note"), metadata: None, data })
    }

    fn shown(sizes: &[i64], texts: &[&[u8]]) -> String {
        let carried = carry_texts(sizes, texts).unwrap();
        let page = String::from_utf8(carried.files.last().unwrap().content.to_vec()).unwrap();
        let (_, body) = page.split_once("<body>\n").unwrap();
        body.strip_suffix("</body>\n</html>\n").unwrap().to_owned()
    }

    /// What the page says before what was written.
    fn check(sizes: &[i64], texts: &[&[u8]], expected: &str) {
        let body = shown(sizes, texts);
        assert_eq!(body.split_once("<details>").map(|(rendered, _)| rendered), Some(expected));
    }

    #[test]
    fn a_text_is_a_page_in_history() {
        let carried = carry_texts(&[1], &[b"step *0*"]).unwrap();
        let [file] = carried.files.as_slice() else { unreachable!() };
        assert!(file.path.starts_with("media/html/") && file.path.ends_with(".html"), "{}", file.path);
        assert!(file.content.starts_with(b"<!DOCTYPE html>\n<html>\n<head>\n<meta charset=\"utf-8\">\n"));
        let Some(Cell::Json(value)) = &carried.cell else { unreachable!() };
        let value = value.to_string();
        assert!(value.starts_with(&format!(r#"{{"_type":"html-file","path":"{}","sha256":""#, file.path)), "{value}");
        assert!(value.ends_with(&format!(r#"","size":{}}}"#, file.content.len())), "{value}");
        assert_eq!(
            shown(&[1], &[b"step *0*\r\n"]),
            "<p>step <em>0</em></p>\n<details><summary>As it was written</summary>\n<pre>\nstep *0*&#13;\n</pre>\n</details>\n"
        );
    }

    #[test]
    fn arrays_are_tables() {
        check(&[], &[b"a"], "<p>a</p>\n");
        check(&[], &[b""], "");
        let row = |cells: &[&str]| {
            let cells: String = cells.iter().map(|cell| format!("<td><p>{cell}</p>\n</td>\n")).collect();
            format!("<tr>\n{cells}</tr>\n")
        };
        let table = |rows: &[&[&str]]| {
            let rows: String = rows.iter().map(|cells| row(cells)).collect();
            format!("<table>\n<tbody>\n{rows}</tbody>\n</table>\n")
        };
        check(&[2], &[b"a", b"b"], &table(&[&["a"], &["b"]]));
        check(&[2, 2], &[b"a", b"b", b"c", b"d"], &table(&[&["a", "b"], &["c", "d"]]));
        check(&[1, 1], &[b"a"], &table(&[&["a"]]));
        let slices = ["[0, 0, :, :]", "[0, 1, :, :]"].map(|place| format!("<h4>{place}</h4>\n"));
        let expected = format!("{}{}{}{}", slices[0], table(&[&["a", "b"]]), slices[1], table(&[&["c", "d"]]));
        check(&[1, 2, 1, 2], &[b"a", b"b", b"c", b"d"], &expected);
    }

    #[test]
    fn what_is_no_text_is_said() {
        let body = shown(&[2], &[b"a\xff\0\0", b"b\0"]);
        assert!(body.contains("<pre>\na\u{fffd}</pre>\n<pre>\nb</pre>\n"), "{body}");
        assert!(body.contains("1 of the texts") && body.contains("3 zero bytes"), "{body}");
        assert!(carry_texts(&[0], &[]).unwrap() == Carried::default());
        assert!(carry_texts(&[3], &[b"a"]).is_err());
        let subject = Subject { tag: "a", key: "a", step: 0, names: Names::Sha256 };
        let number = TensorProto { dtype: 1, float_val: vec![1.0], ..Default::default() };
        for data in [Data::None, Data::Tensor(Box::new(number))] {
            assert!(carry(&subject, &Value { tag: Bytes::new(), metadata: None, data }).is_err());
        }
    }

    #[test]
    fn long_texts_are_shown_as_written_and_larger_ones_kept_as_files() {
        let long = "word <b> ".repeat(40_000);
        let body = shown(&[1], &[long.as_bytes()]);
        assert_eq!(body, format!("<pre>\n{}</pre>\n", long.replace('<', "&lt;").replace('>', "&gt;")));

        let large = "ä".repeat(LARGE / 2);
        let carried = carry_texts(&[1], &[large.as_bytes()]).unwrap();
        let [kept, page] = carried.files.as_slice() else { unreachable!() };
        assert_eq!(kept.content, large.as_bytes());
        assert!(kept.path.starts_with("tensorboard/text/a_note-") && kept.path.ends_with(".txt"), "{}", kept.path);
        let page = String::from_utf8(page.content.to_vec()).unwrap();
        assert!(page.contains(&kept.path) && page.contains("The first 65536 of"), "{}", &page[..1000]);
        assert!(page.len() < 2 * BEGINNING);

        let half = vec![b'x'; LARGE / 2];
        let carried = carry_texts(&[2, 1], &[half.as_slice(), &half]).unwrap();
        let several = Json::parse(std::str::from_utf8(&carried.files[0].content).unwrap()).unwrap();
        assert_eq!(several.get("shape").map(Json::to_string), Some("[2,1]".to_owned()));
    }

    #[test]
    fn a_beginning_ends_between_characters() {
        for before in 0..4 {
            let text = format!("{}{}", "x".repeat(BEGINNING - before), "😀".repeat(3));
            let kept = CarriedFile::kept("text", "a", "txt", text.into(), Names::Sha256);
            assert!(!beginning(&kept).contains('\u{fffd}'), "{before}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_tensor_is_survived(
            texts in proptest::collection::vec(proptest::collection::vec(proptest::prelude::any::<u8>(), 0..20), 0..13),
            sizes in proptest::collection::vec(0_i64..5, 0..5),
        ) {
            let texts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
            let _ = carry_texts(&sizes, &texts);
        }
    }
}
