//! The console of a run: lines by number, of which the last ones may still change. Pure.
//!
//! Two terminals, standard output and standard error, share one numbering: a line has its number from the moment that
//! something is printed in it. Only the last [`HEIGHT`] lines can change; so the state that has to be kept between two
//! requests, or two processes, is these lines and two cursors, however much was printed. What changes is gathered in
//! [`Printed`], always as one unbroken range of lines.
//!
//! The time of a line is when it was printed, as far as the log says it.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::model::json::write_string;
use crate::upload::terminal::{HEIGHT, Screen, Terminal};

/// Longer lines are cut, as by the official client.
const MAX_CHARACTERS: usize = 4096;

/// How many spaces one print may cause before characters that stand far to the right. A cursor that goes down keeps its
/// column, so without a limit four bytes could make a line of thousands.
const MAX_SPACES: usize = 4 << 20;

/// Bytes of a line beyond its text, about.
const LINE_COST: usize = 48;

/// All that was printed so far, but for the text of lines that cannot change any more.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Console {
    /// How many lines have left `window`.
    gone: u64,
    window: VecDeque<ConsoleLine>,
    output: Terminal,
    error: Terminal,
    /// The latest time that the log said, in microseconds since the Unix epoch.
    time: i64,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConsoleLine {
    stream: Stream,
    /// Microseconds since the Unix epoch.
    time: i64,
    #[serde(with = "characters")]
    text: Vec<char>,
}

/// Where something was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stream {
    Output,
    Error,
}

/// Lines that changed, from one number on to the last line.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Printed {
    from: Option<u64>,
    /// Of these lines, the ones that have left the window.
    lines: Vec<ConsoleLine>,
    bytes: usize,
}

impl Console {
    /// Whether nothing was ever printed.
    pub(crate) fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// How many lines there are.
    pub(crate) fn count(&self) -> u64 {
        self.gone.saturating_add(self.window.len() as u64)
    }

    /// Whether this can have come of printing.
    pub(crate) fn is_plausible(&self) -> bool {
        self.window.len() <= HEIGHT && self.output.is_plausible() && self.error.is_plausible()
    }

    /// Takes a time, in nanoseconds since the Unix epoch, for that of lines to come.
    pub(crate) fn set_time(&mut self, nanoseconds: i64) {
        self.time = nanoseconds.div_euclid(1000);
    }

    /// Prints what a process printed: any part of a line, or of many.
    pub(crate) fn print(&mut self, stream: Stream, text: &str, printed: &mut Printed) {
        let terminal = match stream {
            Stream::Output => &mut self.output,
            Stream::Error => &mut self.error,
        };
        // The terminal and the lines are borrowed apart.
        let mut taken = std::mem::take(terminal);
        taken.print(text, &mut Printer { console: self, printed, stream, spaces: MAX_SPACES });
        match stream {
            Stream::Output => self.output = taken,
            Stream::Error => self.error = taken,
        }
    }

    /// Adds whole lines, which no terminal sees.
    pub(crate) fn add_lines(&mut self, text: &str, printed: &mut Printed) {
        for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
            self.begin(Stream::Output, line.chars().collect(), printed);
        }
    }

    fn begin(&mut self, stream: Stream, text: Vec<char>, printed: &mut Printed) -> u64 {
        let number = self.count();
        self.window.push_back(ConsoleLine { stream, time: self.time, text });
        printed.from.get_or_insert(number);
        printed.bytes += LINE_COST;
        if self.window.len() > HEIGHT
            && let Some(line) = self.window.pop_front()
        {
            if printed.from.is_some_and(|from| from <= self.gone) {
                printed.bytes += line.text.len();
                printed.lines.push(line);
            }
            self.gone += 1;
        }
        number
    }
}

/// A print that is under way.
struct Printer<'a> {
    console: &'a mut Console,
    printed: &'a mut Printed,
    stream: Stream,
    spaces: usize,
}

impl Screen for Printer<'_> {
    fn begin_line(&mut self) -> u64 {
        self.console.begin(self.stream, Vec::new(), self.printed)
    }

    fn put(&mut self, number: u64, column: usize, character: char) {
        let place = number.checked_sub(self.console.gone).and_then(|place| usize::try_from(place).ok());
        let Some(line) = place.and_then(|place| self.console.window.get_mut(place)) else { return };
        let mut column = column;
        if column >= MAX_CHARACTERS {
            return;
        }
        if column > line.text.len() {
            let missing = column - line.text.len();
            match self.spaces.checked_sub(missing) {
                Some(left) => {
                    self.spaces = left;
                    line.text.resize(column, ' ');
                }
                None => column = line.text.len(),
            }
        }
        match line.text.get_mut(column) {
            None => line.text.push(character),
            Some(there) if *there == character => return,
            Some(there) => *there = character,
        }
        self.printed.from = Some(self.printed.from.map_or(number, |from| from.min(number)));
    }
}

impl Printed {
    /// About how many bytes these lines have, without those that may still change.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Ends the range: all changed lines as they are now, and the number of the first.
    pub(crate) fn finish(mut self, console: &Console) -> (u64, Vec<ConsoleLine>) {
        let Some(from) = self.from else { return (console.count(), Vec::new()) };
        let known = usize::try_from(from.saturating_sub(console.gone)).unwrap_or(usize::MAX);
        self.lines.extend(console.window.iter().skip(known).cloned());
        (from, self.lines)
    }

    /// Takes the lines that cannot change any more. For whoever wants all lines, from the first to the last.
    pub(crate) fn take_final(&mut self) -> Vec<ConsoleLine> {
        self.bytes = 0;
        std::mem::take(&mut self.lines)
    }
}

impl ConsoleLine {
    /// The text alone.
    pub(crate) fn text(&self) -> String {
        self.text.iter().collect()
    }

    /// The line as servers want it: as JSON where they say so, or as text.
    pub(crate) fn write(&self, structured: bool, out: &mut Vec<u8>) {
        let time = jiff::Timestamp::from_microsecond(self.time).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S%.6f");
        let line = if structured {
            out.push(b'{');
            if self.stream == Stream::Error {
                out.extend_from_slice(br#""level":"error","#);
            }
            out.extend_from_slice(format!(r#""ts":"{time}","content":"#).as_bytes());
            write_string(&self.text(), out);
            return out.push(b'}');
        } else {
            let level = if self.stream == Stream::Error { "ERROR " } else { "" };
            format!("{level}{time} {}", self.text())
        };
        out.extend_from_slice(line.as_bytes());
    }

    /// About how many bytes [`ConsoleLine::write`] makes.
    pub(crate) fn cost(&self) -> usize {
        self.text.iter().map(|character| character.len_utf8()).sum::<usize>() + LINE_COST
    }
}

/// Cuts lines into parts that fit into a request of so many bytes; a part holds at least one line.
pub(crate) fn parts(lines: &[ConsoleLine], max_bytes: usize) -> Vec<&[ConsoleLine]> {
    let mut parts = Vec::new();
    let mut rest = lines;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fit = rest.iter().try_fold(0, |count, line| {
            bytes += line.cost();
            if bytes > max_bytes && count > 0 { ControlFlow::Break(count) } else { ControlFlow::Continue(count + 1) }
        });
        let (ControlFlow::Break(count) | ControlFlow::Continue(count)) = fit;
        let (part, behind) = rest.split_at(count);
        parts.push(part);
        rest = behind;
    }
    parts
}

/// Characters are kept as a text.
mod characters {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &[char], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text.iter().collect::<String>())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<char>, D::Error> {
        String::deserialize(deserializer).map(|text| text.chars().collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn texts(lines: &[ConsoleLine]) -> Vec<String> {
        lines.iter().map(ConsoleLine::text).collect()
    }

    #[test]
    fn two_streams_share_the_numbers() {
        let (mut console, mut printed) = (Console::default(), Printed::default());
        console.print(Stream::Output, "one\ntw", &mut printed);
        console.print(Stream::Error, "bad", &mut printed);
        console.print(Stream::Output, "o\nthree\n", &mut printed);
        console.add_lines("from a logger\nin two lines\n", &mut printed);
        console.print(Stream::Error, " news\n", &mut printed);
        let (from, lines) = printed.finish(&console);
        let expected = ["one", "two", "bad news", "three", "from a logger", "in two lines"];
        assert_eq!((from, texts(&lines)), (0, expected.map(str::to_owned).to_vec()));
        assert_eq!(lines.iter().filter(|line| line.stream == Stream::Error).count(), 1);

        // A later change sends what changed, and what comes behind it.
        let mut printed = Printed::default();
        console.print(Stream::Output, "\x1b[A\rTHREE", &mut printed);
        assert_eq!(printed.finish(&console).0, 3);
        let mut printed = Printed::default();
        console.print(Stream::Output, "\rTHREE", &mut printed);
        assert_eq!(printed.from, None, "what stays as it was is no change");
    }

    #[test]
    fn lines_have_a_level_and_the_time_of_their_beginning() {
        let (mut console, mut printed) = (Console::default(), Printed::default());
        console.set_time(1_795_000_000_123_456_789);
        console.print(Stream::Output, "a \"b\"", &mut printed);
        console.set_time(1_795_000_001_000_000_000);
        console.print(Stream::Output, "c\n", &mut printed);
        console.print(Stream::Error, "bad", &mut printed);
        let (_, lines) = printed.finish(&console);
        let written = |structured: bool| -> Vec<String> {
            let write = |line: &ConsoleLine| {
                let mut out = Vec::new();
                line.write(structured, &mut out);
                String::from_utf8(out).unwrap()
            };
            lines.iter().map(write).collect()
        };
        let expected = ["2026-11-18T11:06:40.123456 a \"b\"c", "ERROR 2026-11-18T11:06:41.000000 bad"];
        assert_eq!(written(false), expected);
        let expected = [
            r#"{"ts":"2026-11-18T11:06:40.123456","content":"a \"b\"c"}"#,
            r#"{"level":"error","ts":"2026-11-18T11:06:41.000000","content":"bad"}"#,
        ];
        assert_eq!(written(true), expected);
    }

    #[test]
    fn long_lines_are_cut_and_spaces_are_not_made_without_end() {
        let (mut console, mut printed) = (Console::default(), Printed::default());
        console.print(Stream::Output, &"x".repeat(5000), &mut printed);
        assert_eq!(console.window[0].text.len(), MAX_CHARACTERS);

        let (mut console, mut printed) = (Console::default(), Printed::default());
        let steps = "x".repeat(4000) + &"\x1b[By".repeat(90_000);
        console.print(Stream::Output, &steps, &mut printed);
        let spaces: usize = printed.lines.iter().map(|line| line.text.len()).sum();
        assert!(spaces < MAX_SPACES + 2_000_000, "{spaces}");
    }

    #[test]
    fn parts_are_as_large_as_they_may_be() {
        let (mut console, mut printed) = (Console::default(), Printed::default());
        (0..10).for_each(|_| console.print(Stream::Output, "0123456789\n", &mut printed));
        let (_, lines) = printed.finish(&console);
        let sizes = |max: usize| parts(&lines, max).iter().map(|part| part.len()).collect::<Vec<_>>();
        assert_eq!(sizes(1 << 20), [10]);
        assert_eq!(sizes(4 * (10 + LINE_COST)), [4, 4, 2]);
        assert_eq!(sizes(1), [1; 10]);
    }

    proptest::proptest! {
        /// What a server holds is the same however prints are put together into requests, and wherever a process begins
        /// again from what it kept.
        #[test]
        fn however_it_is_cut_the_same_lines_arrive(
            prints in proptest::collection::vec(
                (proptest::bool::ANY, "([a-c]{1,4}|\n|\r|\x1b\\[A|\x1b\\[B|\x1b\\[m){0,60}"), 0..40),
            cuts in proptest::num::u64::ANY,
        ) {
            let stream = |error: bool| if error { Stream::Error } else { Stream::Output };
            let (mut console, mut printed) = (Console::default(), Printed::default());
            for (error, text) in &prints {
                console.print(stream(*error), text, &mut printed);
            }
            let (_, whole) = printed.finish(&console);

            let mut held: Vec<ConsoleLine> = Vec::new();
            let mut kept = Console::default();
            let mut printed = Printed::default();
            for (index, (error, text)) in prints.iter().enumerate() {
                kept.print(stream(*error), text, &mut printed);
                if cuts >> (index % 64) & 1 == 1 || index + 1 == prints.len() {
                    let (from, lines) = std::mem::take(&mut printed).finish(&kept);
                    let from = usize::try_from(from).unwrap();
                    proptest::prop_assert!(from <= held.len(), "no gap");
                    held.truncate(from);
                    held.extend(lines);
                    proptest::prop_assert_eq!(held.len() as u64, kept.count());
                    kept = serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap();
                }
            }
            proptest::prop_assert_eq!(whole, held);
        }
    }
}
