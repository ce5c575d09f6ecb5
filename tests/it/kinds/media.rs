//! Images, video, sound and text: files that rows speak of.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{column, expected_files, files, imported, paths, rows, tags, text};

/// What the bytes of an image say of its format.
fn format(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Some("png"),
        [0xff, 0xd8, ..] => Some("jpeg"),
        [b'G', b'I', b'F', ..] => Some("gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("webp"),
        _ => None,
    }
}

#[test]
fn images_arrive_byte_for_byte() {
    let mut seen = BTreeSet::new();
    for tag in tags("images", 40) {
        let shown = |point: &Value| !point["files"].as_array().unwrap().is_empty() && tag.name != "no_picture";
        let shown = |point: &Value| shown(point) && tag.name != "no picture";
        for (point, cell) in tag.cells(shown) {
            let wanted = expected_files(&point["files"]);
            assert_eq!(files(tag.run, &cell), wanted, "{}: {cell}", tag.what);
            let kind = cell["_type"].as_str().unwrap();
            let video = tag.name.ends_with("video");
            assert_eq!(kind, if video { "video-file" } else { "images/separated" }, "{}", tag.what);
            for side in ["width", "height"] {
                assert_eq!(cell[side].to_string(), point[side], "{}: {side}", tag.what);
            }
            let path = &paths(&cell)[0];
            let format = format(tag.run.files[path].bytes.as_ref().unwrap()).unwrap();
            assert!(path.ends_with(&format!(".{format}")), "{}: {path} is a {format}", tag.what);
            if !video {
                assert_eq!(cell["format"], format, "{}", tag.what);
                assert_eq!(cell["count"], wanted.len(), "{}", tag.what);
            }
            seen.insert((kind.to_owned(), format));
        }
    }
    let seen: Vec<_> = seen.iter().map(|(kind, format)| (kind.as_str(), *format)).collect();
    let images = ["gif", "jpeg", "png", "webp"].map(|format| ("images/separated", format));
    assert_eq!(seen, [images.as_slice(), &[("video-file", "gif")]].concat());
}

#[test]
fn what_is_no_picture_is_kept_and_no_row_speaks_of_it() {
    let mut found = 0;
    for tag in tags("images", 1).iter().filter(|tag| ["no picture", "no pictures"].contains(&tag.name)) {
        assert_eq!(column(tag.run, tag.name), [], "{}", tag.what);
        for (sha256, _) in expected_files(&tag.points[0]["files"]) {
            let kept = tag.run.files.iter().find(|(_, file)| file.sha256 == sha256);
            let (path, _) = kept.unwrap_or_else(|| panic!("{} is not kept", tag.what));
            assert!(path.starts_with("tensorboard/images/"), "{path}");
            found += 1;
        }
    }
    assert_eq!(found, 1);
}

#[test]
fn sounds_arrive_byte_for_byte_with_their_labels() {
    let mut captions = Vec::new();
    for tag in tags("audio", 18) {
        for (point, cell) in tag.cells(|_| true) {
            let clips = point["clips"].as_array().unwrap();
            assert_eq!(files(tag.run, &cell), expected_files(&point["clips"]), "{}: {cell}", tag.what);
            let labels: Vec<&str> = clips.iter().map(|clip| clip["label"].as_str().unwrap()).collect();
            if let [label] = labels.as_slice() {
                assert_eq!(cell["_type"], "audio-file", "{}", tag.what);
                assert_eq!(cell["caption"].as_str().unwrap_or_default(), *label, "{}", tag.what);
            } else {
                assert_eq!((&cell["_type"], &cell["count"]), (&"audio".into(), &clips.len().into()), "{}", tag.what);
                assert_eq!(cell["sampleRates"], serde_json::json!(vec![8000; clips.len()]), "{}: {cell}", tag.what);
                assert_eq!(cell["durations"], serde_json::json!(vec![0.01; clips.len()]), "{}: {cell}", tag.what);
                let given = cell["audio"].as_array().unwrap().iter();
                let given: Vec<&str> = given.map(|clip| clip["caption"].as_str().unwrap_or_default()).collect();
                assert_eq!(given, labels, "{}", tag.what);
            }
            captions.extend(labels.into_iter().filter(|label| !label.is_empty()));
        }
    }
    assert_eq!(captions, ["clip *0*", "clip *1*"]);
}

#[test]
fn texts_arrive_as_pages_in_which_nothing_is_active() {
    let mut tables = 0;
    for tag in tags("text", 20) {
        for (point, cell) in tag.cells(|_| true) {
            assert_eq!(cell["_type"], "html-file", "{}", tag.what);
            assert!(paths(&cell)[0].ends_with(".html"), "{cell}");
            let html = text(tag.run, &cell);
            let lower = html.to_lowercase();
            // An attribute of an element or an element would have these forms; as text it is escaped.
            for active in ["<script", "<img src=x", "href=\"javascript:", "<iframe", "<object"] {
                assert!(!lower.contains(active), "{}: `{active}` in {html}", tag.what);
            }
            for written in point["strings"].as_array().unwrap() {
                for word in written.as_str().unwrap().split(|c: char| !c.is_alphanumeric()) {
                    assert!(html.contains(word), "{}: `{word}` is not in {html}", tag.what);
                }
            }
            let rank = point["shape"].as_array().unwrap().len();
            if tag.name.starts_with("note") {
                let number = point["step"].to_string();
                assert!(html.contains(&format!("step <em>{number}</em>")), "{html}");
            } else if rank == 2 || tag.name.ends_with("list") {
                let cells = point["strings"].as_array().unwrap().len();
                assert_eq!(lower.matches("<td>").count(), cells, "{html}");
                tables += 1;
            } else {
                // The markdown with everything in it.
                for piece in [
                    "<h1>Notes</h1>",
                    "<strong>emphasis</strong>",
                    "<code>code</code>",
                    "<td>0.1</td>",
                    "if 1 &lt; 2 and ",
                    "https://example.org/?a=1&amp;b=2",
                    "alert(",
                ] {
                    assert!(html.contains(piece), "{}: `{piece}` is not in {html}", tag.what);
                }
            }
        }
    }
    assert_eq!(tables, 7);
}

/// Every file that a row speaks of is there, is what the row says of it, and came once; and nothing else is below `media/`.
#[test]
fn rows_speak_only_of_files_that_are_there() {
    let mut checked = 0;
    for (name, run) in &imported().runs {
        let mut spoken_of = BTreeSet::new();
        for row in rows(run) {
            for value in row.as_object().unwrap().values() {
                files(run, value);
                spoken_of.extend(paths(value));
                check_digests(value, &mut checked);
            }
        }
        let media: BTreeSet<String> = run.files.keys().filter(|path| path.starts_with("media/")).cloned().collect();
        assert_eq!(spoken_of, media, "{name}");
        assert!(run.files.values().all(|file| file.uploads == 1), "{name}: {:?}", run.files);
        for path in run.files.keys() {
            let safe = |c: char| c.is_ascii_alphanumeric() || ".-_/".contains(c);
            assert!(path.chars().all(safe) && !path.contains("..") && !path.starts_with('/'), "{name}: {path}");
        }
    }
    assert!(checked > 70, "{checked} values with a digest");

    fn check_digests(value: &Value, checked: &mut usize) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| check_digests(item, checked)),
            Value::Object(members) => {
                if let (Some(path), Some(sha256), Some(size)) =
                    (members.get("path"), members.get("sha256"), members.get("size"))
                {
                    let there = imported().runs.values().find_map(|run| run.files.get(path.as_str()?)).unwrap();
                    assert_eq!((sha256.as_str(), size.as_u64()), (Some(&*there.sha256), Some(there.size as u64)));
                    *checked += 1;
                }
                members.values().for_each(|member| check_digests(member, checked));
            }
            _ => {}
        }
    }
}

#[test]
fn equal_content_is_one_file() {
    for (name, run) in &imported().runs {
        let mut by_digest: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for (path, file) in run.files.iter().filter(|(path, _)| path.starts_with("media/")) {
            let kind = path.split('/').nth(1).unwrap();
            by_digest.entry((kind, &file.sha256)).or_default().push(path);
        }
        assert!(by_digest.values().all(|paths| paths.len() == 1), "{name}: {by_digest:?}");
    }
    // The same picture under two tags.
    for (writer, one, other) in [
        ("tensorboardx", "picture", "picture_again"),
        ("torch", "a picture/now", "picture again"),
        ("tf2", "picture", "picture again"),
    ] {
        let run = &imported().runs[writer];
        let first = |key: &str| paths(&column(run, key)[0].1);
        assert_eq!(first(one), first(other), "{writer}");
        assert_eq!(first(one).len(), 1, "{writer}");
    }
}
