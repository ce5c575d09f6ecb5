//! What Python's YAML writers say with tags, as the plain values that a person would have written.
//!
//! Tuples are lists, objects are their members, paths are texts, NumPy scalars are numbers. An object that is made of
//! other things keeps what it is made of. Nothing here is ever called or loaded: a tag is a word.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::convert::config::scalars;
use crate::model::{Json, Number};

/// A scalar with a tag. An unknown tag leaves it what it would be without.
pub(super) fn scalar(tag: &str, text: &str, is_plain: bool) -> Json {
    let as_written = || if is_plain { scalars::plain(text) } else { Json::from(text) };
    match tag {
        "str" | "!" | "timestamp" | "python/str" | "python/unicode" | "python/bytes" | "python/complex" => {
            Json::from(text)
        }
        "null" | "python/none" => Json::Null,
        "int" | "float" | "bool" | "python/int" | "python/long" | "python/float" | "python/bool" => {
            match (tag, scalars::plain(text)) {
                ("float" | "python/float", Json::Number(number)) => Json::Number(number),
                (_, value) => value,
            }
        }
        // Base64, which may stand on several lines.
        "binary" => Json::from(text.split_whitespace().collect::<String>()),
        _ => {
            let named = ["python/name:", "python/module:"].iter().find_map(|kind| tag.strip_prefix(kind));
            match named {
                Some(name) => Json::from(name),
                None => as_written(),
            }
        }
    }
}

/// A map or list with a tag. An unknown tag leaves it what it would be without.
pub(super) fn plain(tag: &str, value: Json) -> Json {
    if tag == "set" {
        return match value {
            Json::Object(members) => Json::Array(members.into_keys().map(Json::String).collect()),
            other => other,
        };
    }
    let made = |kind: &str| tag.strip_prefix(kind);
    let Some(class) = made("python/object/apply:").or_else(|| made("python/object/new:")) else { return value };
    match value {
        Json::Array(arguments) => applied(class, arguments),
        Json::Object(mut parts) => {
            // A map of its own class: its items, and its state when that is all there is.
            match parts.remove("dictitems").or_else(|| parts.remove("listitems")) {
                Some(items) => items,
                None => match parts.get("args") {
                    Some(Json::Array(arguments)) if parts.len() == 1 => applied(class, arguments.clone()),
                    _ => Json::Object(parts),
                },
            }
        }
        other => other,
    }
}

fn applied(class: &str, mut arguments: Vec<Json>) -> Json {
    if class.starts_with("pathlib.") {
        return Json::from(path(&arguments));
    }
    if class.starts_with("numpy.") && class.ends_with(".scalar") {
        return match numpy_scalar(&arguments) {
            Some(number) => Json::Number(number),
            None => Json::Array(arguments),
        };
    }
    if class == "collections.OrderedDict"
        && let [Json::Array(pairs)] = arguments.as_slice()
        && let Some(members) = pairs.iter().map(pair).collect::<Option<_>>()
    {
        return Json::Object(members);
    }
    // A member of an enumeration, a device, a wrapped text: the one thing that it is made of.
    match (arguments.len(), arguments.pop()) {
        (1, Some(only)) => only,
        (_, Some(last)) => {
            arguments.push(last);
            Json::Array(arguments)
        }
        (_, None) => Json::Array(arguments),
    }
}

fn pair(pair: &Json) -> Option<(String, Json)> {
    match pair {
        Json::Array(pair) => match pair.as_slice() {
            [Json::String(key), value] => Some((key.clone(), value.clone())),
            [key, value] => Some((key.to_string(), value.clone())),
            _ => None,
        },
        _ => None,
    }
}

/// The parts of a path, of which the first may be the root.
fn path(parts: &[Json]) -> String {
    let mut path = String::new();
    for part in parts {
        if !path.is_empty() && !path.ends_with('/') {
            path.push('/');
        }
        match part {
            Json::String(text) => path.push_str(text),
            other => path.push_str(&other.to_string()),
        }
    }
    path
}

/// `[dtype, bytes]`, where the dtype is made of `[code, …]` and the bytes are little-endian.
fn numpy_scalar(arguments: &[Json]) -> Option<Number> {
    let [dtype, bytes] = arguments else { return None };
    let code = match dtype {
        Json::Object(parts) => match parts.get("args")? {
            Json::Array(arguments) => arguments.first()?.as_str()?,
            _ => return None,
        },
        Json::Array(arguments) => arguments.first()?.as_str()?,
        Json::String(code) => code,
        _ => return None,
    };
    let bytes = STANDARD.decode(bytes.as_str()?).ok()?;
    Some(match code {
        "f8" => Number::F64(f64::from_le_bytes(bytes.try_into().ok()?)),
        "f4" => Number::F32(f32::from_le_bytes(bytes.try_into().ok()?)),
        "i8" => Number::I64(i64::from_le_bytes(bytes.try_into().ok()?)),
        "i4" => Number::I64(i32::from_le_bytes(bytes.try_into().ok()?).into()),
        "u8" => Number::U64(u64::from_le_bytes(bytes.try_into().ok()?)),
        "u4" => Number::U64(u32::from_le_bytes(bytes.try_into().ok()?).into()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use crate::convert::config::yaml::parse;

    fn check(text: &str, expected: &str) {
        assert_eq!(parse(text).map(|value| value.to_string()).as_deref(), Ok(expected), "{text}");
    }

    #[test]
    fn what_python_writes_becomes_plain() {
        check("a: !!python/tuple [1, 2]\n", r#"{"a":[1,2]}"#);
        check("!!python/object:argparse.Namespace\nlr: 0.1\n", r#"{"lr":0.1}"#);
        check("a: !!python/name:torch.nn.ReLU ''\n", r#"{"a":"torch.nn.ReLU"}"#);
        check("a: !!python/object/apply:pathlib.PosixPath\n- /\n- data\n- x\n", r#"{"a":"/data/x"}"#);
        check("a: !!python/object/apply:my.Color [2]\n", r#"{"a":2}"#);
        check("a: !!python/object/apply:torch.device [cuda, 0]\n", r#"{"a":["cuda",0]}"#);
        check("a: !!set {x, y}\n", r#"{"a":["x","y"]}"#);
        check("a: !!binary |\n  AAAA\n  BBBB\n", r#"{"a":"AAAABBBB"}"#);
        check("a: !!str 1\nb: !!int '2'\nc: !!float 1e-3\nd: ! 1\n", r#"{"a":"1","b":2,"c":0.001,"d":"1"}"#);
        check("a: !unknown {b: !other 3}\nc: !<tag:example.com,2000:x> d\n", r#"{"a":{"b":3},"c":"d"}"#);
        check("!!python/object/new:easydict.EasyDict\ndictitems: &i {a: 1}\nstate: *i\n", r#"{"a":1}"#);
        check(
            "!!python/object/apply:collections.OrderedDict\n- - - algo\n    - ppo\n  - - env\n    - CartPole-v1\n  - - 3\n    - null\n",
            r#"{"3":null,"algo":"ppo","env":"CartPole-v1"}"#,
        );
        check(
            "lr: !!python/object/apply:numpy.core.multiarray.scalar\n- !!python/object/apply:numpy.dtype\n  args: [f8, false, true]\n  state: !!python/tuple [3, <, null, null, null, -1, -1, 0]\n- !!binary |\n  mpmZmZmZuT8=\n",
            r#"{"lr":0.1}"#,
        );
        check("a: !!python/object/apply:numpy.core.multiarray.scalar [x, y]\n", r#"{"a":["x","y"]}"#);
    }
}
