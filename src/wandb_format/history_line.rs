//! History rows as a server wants them: one JSON object a line.
//!
//! Promises that every value stands in the line with the very text that its writer gave it wherever the row is flat,
//! which nearly all are, and without allocating; that of two values for one key the later stands; and that a value that
//! cannot be read costs only itself and is counted. Does not know offsets, limits or servers.

use crate::model::json::{MAX_DEPTH, write_string};
use crate::model::{Json, Number};
use crate::wandb_format::tree::merge_leaves;
use crate::wandb_format::wire::{Fields, Value};

/// Makes lines; keeps its buffers from one to the next.
#[derive(Debug, Default)]
pub struct HistoryLines {
    /// Where the keys of the row stand in its bytes.
    keys: Vec<(u32, u32)>,
}

/// What a line was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HistoryLine {
    /// Values that could not be read and are not in the line.
    pub skipped: u64,
    /// The row's `_step`, when it is an integer.
    pub step: Option<i64>,
}

impl HistoryLines {
    /// Appends the line of a `HistoryRecord` (its bytes, as the reader lends them), without a line break.
    pub fn append(&mut self, history: &[u8], out: &mut Vec<u8>) -> HistoryLine {
        self.append_from(history, None, out)
    }

    /// The same, but a `_step` below `least` becomes that: so the steps of a run that was resumed go on.
    pub fn append_from(&mut self, history: &[u8], least: Option<i64>, out: &mut Vec<u8>) -> HistoryLine {
        let start = out.len();
        if let Some(line) = self.flat(history, least, out) {
            return line;
        }
        out.truncate(start);
        nested(history, least, out)
    }

    /// The line of a row in which every value has a key of its own and none is an object; `None` for any other.
    fn flat(&mut self, history: &[u8], least: Option<i64>, out: &mut Vec<u8>) -> Option<HistoryLine> {
        self.keys.clear();
        let mut line = HistoryLine::default();
        out.push(b'{');
        for item in items(history) {
            match item.ok().and_then(FlatItem::read) {
                Some(FlatItem::Plain { key, value }) => {
                    if !self.keys.is_empty() {
                        out.push(b',');
                    }
                    write_string(key, out);
                    out.push(b':');
                    if key == "_step" {
                        line.step = value.parse().ok();
                    }
                    match (key, line.step, least) {
                        ("_step", Some(step), Some(least)) if step < least => {
                            line.step = Some(least);
                            out.extend_from_slice(itoa::Buffer::new().format(least).as_bytes());
                        }
                        _ => out.extend_from_slice(value.as_bytes()),
                    }
                    let from = key.as_ptr().addr() - history.as_ptr().addr();
                    self.keys.push((u32::try_from(from).ok()?, u32::try_from(key.len()).ok()?));
                }
                Some(FlatItem::Other) => return None,
                None => line.skipped += 1,
            }
        }
        out.push(b'}');
        self.keys_differ(history).then_some(line)
    }

    fn keys_differ(&mut self, history: &[u8]) -> bool {
        let key = |(from, length): (u32, u32)| history.get(from as usize..(from + length) as usize);
        if self.keys.len() <= 16 {
            let mut keys = self.keys.iter();
            while let Some(one) = keys.next() {
                // Most keys differ in their length already.
                if keys.clone().any(|other| one.1 == other.1 && key(*one) == key(*other)) {
                    return false;
                }
            }
            true
        } else {
            self.keys.sort_unstable_by(|one, other| key(*one).cmp(&key(*other)));
            self.keys.windows(2).all(|pair| key(pair[0]) != key(pair[1]))
        }
    }
}

/// The items of a `HistoryRecord`: field 1. What follows a malformed field is one malformed item.
fn items(history: &[u8]) -> impl Iterator<Item = Result<&[u8], ()>> {
    Fields::new(history).filter_map(|field| match field {
        Ok((1, Value::Bytes(item))) => Some(Ok(item)),
        Ok(_) => None,
        Err(_) => Some(Err(())),
    })
}

/// The key and the JSON text of every value of a `HistoryRecord`: of a nested value the outermost key. Empty texts stand
/// for what is not JSON text there.
pub fn row_items(history: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    items(history).filter_map(|item| {
        let (mut key, mut nested, mut value) = (None, None, None);
        for field in Fields::new(item.ok()?) {
            match field.ok()? {
                (1, Value::Bytes(bytes)) => key = Some(bytes),
                (2, Value::Bytes(bytes)) => nested = nested.or(Some(bytes)),
                (16, Value::Bytes(bytes)) => value = Some(bytes),
                _ => {}
            }
        }
        let text = |bytes| std::str::from_utf8(bytes).ok();
        Some((text(nested.or(key)?)?, value.and_then(text).unwrap_or_default()))
    })
}

/// An item as the quick way sees it.
enum FlatItem<'a> {
    Plain {
        key: &'a str,
        /// JSON that is no object and has no line break in it.
        value: &'a str,
    },
    /// One for the general way.
    Other,
}

impl<'a> FlatItem<'a> {
    /// `None` for an item that cannot be read at all.
    fn read(item: &'a [u8]) -> Option<Self> {
        let (mut key, mut nested, mut value) = (None, None, None);
        for field in Fields::new(item) {
            match field.ok()? {
                (1, Value::Bytes(bytes)) => key = Some(bytes),
                (2, Value::Bytes(_)) if nested.is_some() => return Some(Self::Other),
                (2, Value::Bytes(bytes)) => nested = Some(bytes),
                (16, Value::Bytes(bytes)) => value = Some(bytes),
                _ => {}
            }
        }
        let Some(value) = value.filter(|value| !value.is_empty()) else { return Some(Self::Other) };
        if !is_number(value) {
            if value.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
                || value.contains(&b'\n')
                || value.contains(&b'\r')
            {
                return Some(Self::Other);
            }
            Json::check(std::str::from_utf8(value).ok()?).ok()?;
        }
        let key = std::str::from_utf8(nested.or(key)?).ok().filter(|key| nested.is_some() || !key.is_empty())?;
        Some(Self::Plain { key, value: std::str::from_utf8(value).ok()? })
    }
}

/// Whether this is a JSON number in its strict form: what nearly all values are, told without parsing it.
fn is_number(text: &[u8]) -> bool {
    fn digits(text: &[u8]) -> Option<&[u8]> {
        let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 { None } else { text.get(count..) }
    }
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    if unsigned.starts_with(b"0") && unsigned.get(1).is_some_and(u8::is_ascii_digit) {
        return false;
    }
    let Some(mut rest) = digits(unsigned) else { return false };
    if let Some(fraction) = rest.strip_prefix(b".") {
        let Some(behind) = digits(fraction) else { return false };
        rest = behind;
    }
    if let Some(exponent) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
        let exponent = exponent.strip_prefix(b"-").or_else(|| exponent.strip_prefix(b"+")).unwrap_or(exponent);
        let Some(behind) = digits(exponent) else { return false };
        rest = behind;
    }
    rest.is_empty()
}

/// The line of any row: a tree of its leaves.
fn nested(history: &[u8], least: Option<i64>, out: &mut Vec<u8>) -> HistoryLine {
    let mut tree = Json::object();
    let mut skipped = 0;
    for item in items(history) {
        match item.ok().and_then(nested_item) {
            Some((mut path, value)) => merge_leaves(&mut tree, &mut path, value),
            None => skipped += 1,
        }
    }
    let mut step = match tree.get("_step") {
        Some(Json::Number(Number::I64(step))) => Some(*step),
        _ => None,
    };
    if let Some(least) = least.filter(|least| step.is_some_and(|step| step < *least)) {
        step = Some(least);
        tree.set_path(&["_step"], Json::from(least));
    }
    tree.write(out);
    HistoryLine { skipped, step }
}

fn nested_item(item: &[u8]) -> Option<(Vec<String>, Json)> {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    let (mut key, mut nested, mut json, mut typed) = (String::new(), Vec::new(), String::new(), None);
    for field in Fields::new(item) {
        match field.ok()? {
            (1, Value::Bytes(bytes)) => key = text(bytes)?,
            (2, Value::Bytes(bytes)) => nested.push(text(bytes)?),
            (3, Value::Varint(_)) => typed = Some(Json::Null),
            (4, Value::Varint(value)) => typed = Some(Json::Bool(value != 0)),
            // Zig-zag: the sign is the lowest bit.
            (5, Value::Varint(value)) => typed = Some(Json::from((value >> 1) as i64 ^ -((value & 1) as i64))),
            (6, Value::Fixed64(bytes)) => typed = Some(Json::Number(Number::F64(f64::from_le_bytes(bytes)))),
            (7, Value::Bytes(bytes)) => typed = Some(Json::String(text(bytes)?)),
            (8, Value::Bytes(bytes)) => typed = Some(Json::parse(&text(bytes)?).ok()?),
            (16, Value::Bytes(bytes)) => json = text(bytes)?,
            _ => {}
        }
    }
    if nested.is_empty() {
        if key.is_empty() {
            return None;
        }
        nested.push(key);
    }
    if nested.len() > MAX_DEPTH {
        return None;
    }
    let value = if json.is_empty() { typed? } else { Json::parse(&json).ok()? };
    Some((nested, value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use prost::Message;

    use super::*;
    use crate::proto::wandb_internal::history_item::Value as Typed;
    use crate::proto::wandb_internal::{HistoryItem, HistoryRecord, HistoryStep};

    fn item(path: &[&str], value: &str) -> HistoryItem {
        HistoryItem {
            nested_key: path.iter().map(|key| (*key).to_owned()).collect(),
            value_json: value.to_owned(),
            ..HistoryItem::default()
        }
    }

    fn typed(key: &str, value: Typed) -> HistoryItem {
        HistoryItem { key: key.to_owned(), value: Some(value), ..HistoryItem::default() }
    }

    fn check(items: Vec<HistoryItem>, expected: &str, skipped: u64) {
        let step = Some(HistoryStep { num: 3 });
        let bytes = HistoryRecord { item: items, step }.encode_to_vec();
        let mut out = b"before ".to_vec();
        let line = HistoryLines::default().append(&bytes, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("before {expected}"));
        assert_eq!(line.skipped, skipped, "{expected}");
    }

    #[test]
    fn items_of_a_row_have_their_outermost_key() {
        let item = vec![item(&["loss"], "1e-05"), item(&["a", "b"], "2"), typed("t", Typed::Boolean(true))];
        let bytes = HistoryRecord { item, step: None }.encode_to_vec();
        assert_eq!(row_items(&bytes).collect::<Vec<_>>(), [("loss", "1e-05"), ("a", "2"), ("t", "")]);
    }

    #[test]
    fn flat_values_keep_their_text_and_order() {
        check(
            vec![
                item(&["loss"], "1e-05"),
                item(&["a.b"], "NaN"),
                item(&["t\"x"], r#""text\n""#),
                item(&["l"], "[1, {}]"),
            ],
            r#"{"loss":1e-05,"a.b":NaN,"t\"x":"text\n","l":[1, {}]}"#,
            0,
        );
        check(vec![], "{}", 0);
        let key = HistoryItem { key: "k".into(), value_json: "-Infinity".into(), ..HistoryItem::default() };
        check(vec![key], r#"{"k":-Infinity}"#, 0);
    }

    #[test]
    fn nested_values_make_objects() {
        check(
            vec![
                item(&["d", "x"], "0"),
                item(&["d", "y"], r#"{"z":2.5,"e":{}}"#),
                item(&["e"], "{}"),
                item(&["n"], "null"),
            ],
            r#"{"d":{"x":0,"y":{"z":2.5}},"n":null}"#,
            0,
        );
        check(vec![item(&["a"], "1"), item(&["a", "b"], "2")], r#"{"a":{"b":2}}"#, 0);
        check(vec![item(&["a", "b"], "2"), item(&["a"], "1")], r#"{"a":1}"#, 0);
        check(vec![item(&["a"], "[1,\n2]")], r#"{"a":[1,2]}"#, 0);
    }

    #[test]
    fn of_two_values_the_later_stands() {
        check(vec![item(&["a"], "1"), item(&["b"], "2"), item(&["a"], "3")], r#"{"a":3,"b":2}"#, 0);
        let many = || (0..40).map(|index| item(&[&format!("k{index:02}")], "1"));
        let expected: Vec<_> =
            (0..40).map(|index| format!("\"k{index:02}\":{}", if index == 7 { 2 } else { 1 })).collect();
        check(many().chain([item(&["k07"], "2")]).collect(), &format!("{{{}}}", expected.join(",")), 0);
    }

    #[test]
    fn typed_values_count_where_there_is_no_json() {
        check(
            vec![
                typed("none", Typed::None(0)),
                typed("bool", Typed::Boolean(true)),
                typed("int", Typed::Integer(i64::MIN)),
                typed("float", Typed::Number(f64::NAN)),
                typed("text", Typed::Text("1".into())),
                typed("list", Typed::Json("[1,{}]".into())),
                HistoryItem { value_json: "1".into(), ..typed("both", Typed::Integer(2)) },
            ],
            r#"{"bool":true,"both":1,"float":NaN,"int":-9223372036854775808,"list":[1,{}],"none":null,"text":"1"}"#,
            0,
        );
    }

    #[test]
    fn a_value_that_cannot_be_read_costs_only_itself() {
        check(
            vec![item(&["a"], "1"), item(&["b"], "oops"), item(&["c"], "01"), item(&["d"], "4")],
            r#"{"a":1,"d":4}"#,
            2,
        );
        check(vec![item(&["b"], "oops"), item(&["d"], "4")], r#"{"d":4}"#, 1);
        check(vec![item(&["a"], ""), item(&[], "1"), item(&["e", "f"], "5")], r#"{"e":{"f":5}}"#, 2);
        check(vec![item(&["k"; MAX_DEPTH + 1], "1")], "{}", 1);
    }

    #[test]
    fn the_step_is_told() {
        let step = |items: Vec<HistoryItem>| {
            let bytes = HistoryRecord { item: items, step: None }.encode_to_vec();
            HistoryLines::default().append(&bytes, &mut Vec::new()).step
        };
        assert_eq!(step(vec![item(&["_step"], "12"), item(&["a"], "1")]), Some(12));
        assert_eq!(step(vec![item(&["_step"], "12"), item(&["a", "b"], "1")]), Some(12));
        assert_eq!(step(vec![item(&["_step"], "1.5")]), None);
        assert_eq!(step(vec![item(&["a"], "1")]), None);
    }

    #[test]
    fn numbers_are_told_from_other_text() {
        for number in ["0", "-0", "10", "1.5", "-0.25", "1e5", "1E+05", "2.5e-10"] {
            assert!(is_number(number.as_bytes()), "{number}");
            assert!(Json::check(number).is_ok(), "{number}");
        }
        for other in ["", "-", "01", "1.", ".5", "1e", "1e+", "0x1", "1 ", "NaN", "--1"] {
            assert!(!is_number(other.as_bytes()), "{other}");
        }
    }

    proptest::proptest! {
        /// Whatever the bytes are, the line is JSON and both ways agree about it.
        #[test]
        fn any_row_is_a_line(
            items in proptest::collection::vec((".{0,3}", "[0-9.e+-]{0,4}|[\\[\\]{}\":a,1 \n]{0,6}|\\{\"[ab]\":[12]\\}|NaN"), 0..24),
            cut in proptest::num::u8::ANY,
        ) {
            let items = items.iter().map(|(key, value)| item(&[key.as_str()], value)).collect();
            let mut bytes = HistoryRecord { item: items, step: None }.encode_to_vec();
            bytes.truncate(bytes.len().saturating_sub(usize::from(cut % 4)));
            let mut out = Vec::new();
            let line = HistoryLines::default().append(&bytes, &mut out);
            let mut general = Vec::new();
            proptest::prop_assert_eq!(nested(&bytes, None, &mut general), line);
            let parse = |bytes: Vec<u8>| Json::parse(&String::from_utf8(bytes).unwrap()).unwrap().to_string();
            proptest::prop_assert!(!out.contains(&b'\n'));
            proptest::prop_assert_eq!(parse(out), parse(general));
        }

        #[test]
        fn any_bytes_are_a_line(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let mut out = Vec::new();
            HistoryLines::default().append(&bytes, &mut out);
            proptest::prop_assert!(Json::parse(&String::from_utf8(out).unwrap()).is_ok());
        }
    }
}
