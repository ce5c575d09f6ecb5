//! A stream of a terminal: what is printed to it, as characters at places of lines. Pure.
//!
//! Line feeds, carriage returns and the cursor going up or down are understood, as by the official client: that is what
//! progress bars need. Any other escape sequence is text, because W&B's pages show colors. A terminal sees its last
//! [`HEIGHT`] lines; what has scrolled out of it does not change any more. Where lines are kept, and what other stream may
//! have lines between them, it does not know.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// How many lines a terminal sees, as in the official client.
pub(crate) const HEIGHT: usize = 32;

/// Where a terminal writes.
pub(crate) trait Screen {
    /// Begins a line below all others, and returns its number.
    fn begin_line(&mut self) -> u64;
    /// Puts a character at a place of a line.
    fn put(&mut self, line: u64, column: usize, character: char);
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Terminal {
    /// The numbers of the lines that it sees, the uppermost first.
    view: VecDeque<u64>,
    /// The cursor's row. It may be below all lines: they are begun when something is printed there.
    row: usize,
    column: usize,
    escape: Escape,
}

/// How much of an escape sequence was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Escape {
    #[default]
    No,
    /// `ESC`
    Begun,
    /// `ESC [`
    Control,
}

impl Terminal {
    /// Prints. A text may end anywhere, also within an escape sequence.
    pub(crate) fn print(&mut self, text: &str, screen: &mut impl Screen) {
        for character in text.chars() {
            match (self.escape, character) {
                (Escape::Begun, '[') => self.escape = Escape::Control,
                (Escape::Control, 'A') => {
                    self.escape = Escape::No;
                    self.row = self.row.saturating_sub(1);
                }
                (Escape::Control, 'B') => {
                    self.escape = Escape::No;
                    self.down();
                }
                _ => {
                    self.print_escape(screen);
                    self.print_character(character, screen);
                }
            }
        }
    }

    /// Whether this can have come of printing.
    pub(crate) fn is_plausible(&self) -> bool {
        self.view.len() <= HEIGHT && self.row < HEIGHT
    }

    /// What began like an escape sequence and is none that is understood is text.
    fn print_escape(&mut self, screen: &mut impl Screen) {
        let text = match std::mem::take(&mut self.escape) {
            Escape::No => return,
            Escape::Begun => "\x1b",
            Escape::Control => "\x1b[",
        };
        text.chars().for_each(|character| self.put(character, screen));
    }

    fn print_character(&mut self, character: char, screen: &mut impl Screen) {
        match character {
            '\x1b' => self.escape = Escape::Begun,
            '\r' => self.column = 0,
            '\n' => {
                self.column = 0;
                self.down();
            }
            _ => self.put(character, screen),
        }
    }

    fn put(&mut self, character: char, screen: &mut impl Screen) {
        while self.view.len() <= self.row {
            self.view.push_back(screen.begin_line());
        }
        if let Some(line) = self.view.get(self.row) {
            screen.put(*line, self.column, character);
        }
        self.column = self.column.saturating_add(1);
    }

    fn down(&mut self) {
        self.row += 1;
        if self.row >= HEIGHT {
            self.view.pop_front();
            self.row -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines without any limits.
    #[derive(Debug, Default, PartialEq)]
    struct Lines(Vec<Vec<char>>);

    impl Screen for Lines {
        fn begin_line(&mut self) -> u64 {
            self.0.push(Vec::new());
            self.0.len() as u64 - 1
        }

        fn put(&mut self, line: u64, column: usize, character: char) {
            let line = &mut self.0[usize::try_from(line).expect("small")];
            line.resize(line.len().max(column + 1), ' ');
            line[column] = character;
        }
    }

    fn shown(texts: &[&str]) -> Vec<String> {
        let (mut terminal, mut lines) = (Terminal::default(), Lines::default());
        texts.iter().for_each(|text| terminal.print(text, &mut lines));
        lines.0.iter().map(|line| line.iter().collect()).collect()
    }

    #[test]
    fn lines_begin_when_something_is_printed_in_them() {
        assert_eq!(shown(&["a\nb\n"]), ["a", "b"]);
        assert_eq!(shown(&["a\n\n\nb"]), ["a", "", "", "b"]);
        assert_eq!(shown(&["\n\n"]), [""; 0]);
        assert_eq!(shown(&["par", "tial\nnext"]), ["partial", "next"]);
    }

    #[test]
    fn carriage_returns_overwrite_and_do_not_erase() {
        assert_eq!(shown(&["half done\rdone"]), ["done done"]);
        assert_eq!(shown(&["  0%|  |\r 50%|- |\r100%|--|\n", "ok"]), ["100%|--|", "ok"]);
        assert_eq!(shown(&["ünï\rä"]), ["änï"]);
    }

    #[test]
    fn the_cursor_goes_up_and_down() {
        // Two progress bars below each other.
        assert_eq!(shown(&["outer 0\ninner 0\r\x1b[Aouter 1", "\n\rinner 1"]), ["outer 1", "inner 1"]);
        assert_eq!(shown(&["a\x1b[A\x1b[A\rb"]), ["b"], "there is nothing above the first line");
        assert_eq!(shown(&["ab\x1b[Bc"]), ["ab", "  c"]);
        let sequence = ["a\nb\x1b", "[", "A\rc"];
        assert_eq!(shown(&sequence), ["c", "b"], "a sequence may be cut anywhere");
    }

    #[test]
    fn other_sequences_are_text() {
        assert_eq!(shown(&["\x1b[31mred\x1b[0m\x1b]x"]), ["\x1b[31mred\x1b[0m\x1b]x"]);
        assert_eq!(shown(&["a\x1b\nb\x1b[\rc"]), ["a\x1b", "c\x1b["], "what breaks a sequence off still counts");
    }

    #[test]
    fn what_has_scrolled_away_stays_as_it_is() {
        let many: String = (0..40).map(|line| format!("{line}\n")).collect();
        let up = "\x1b[A".repeat(100);
        let lines = shown(&[&many, &up, "top"]);
        assert_eq!(lines.len(), 40);
        assert_eq!((lines[8].as_str(), lines[9].as_str(), lines[10].as_str()), ("8", "top", "10"));
        // Blank lines that nothing was printed in are forgotten when they scroll away.
        assert_eq!(shown(&[&"\n".repeat(100), "x"]).len(), HEIGHT);
    }

    proptest::proptest! {
        #[test]
        fn however_a_text_is_cut_the_same_is_shown(
            text in "([a-c]|\n|\r|\x1b|\\[|A|B|\x1b\\[A|\x1b\\[B|ü){0,200}",
            cuts in proptest::collection::vec(0..200_usize, 0..6),
        ) {
            let (mut terminal, mut lines) = (Terminal::default(), Lines::default());
            terminal.print(&text, &mut lines);
            let (mut in_pieces, mut pieces) = (Terminal::default(), Lines::default());
            let mut from = 0;
            let mut places: Vec<usize> = cuts.into_iter().filter(|cut| text.is_char_boundary(*cut)).collect();
            places.sort_unstable();
            for to in places.into_iter().chain([text.len()]).filter(|to| *to <= text.len()) {
                in_pieces.print(&text[from..to], &mut pieces);
                let kept = serde_json::to_string(&in_pieces).expect("JSON");
                in_pieces = serde_json::from_str(&kept).expect("a terminal");
                from = to;
            }
            proptest::prop_assert_eq!(&lines, &pieces);
            proptest::prop_assert_eq!(terminal, in_pieces);
        }
    }
}
