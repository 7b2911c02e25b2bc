//! A small screen: what a terminal would show of a step's output.
//!
//! Only what programs use to redraw a line or a few is understood; other control sequences are
//! taken out, so that nothing a step prints reaches the user's terminal as a command.

use std::collections::VecDeque;
use unicode_width::UnicodeWidthChar;

/// Rows that are kept, of which a view shows the last ones.
const ROWS: usize = 64;
/// Cells of a row; the rest of a longer line is not shown.
const COLUMNS: usize = 1024;
const TAB: usize = 8;

/// The screen.
#[derive(Debug)]
pub(crate) struct Terminal {
    rows: VecDeque<Vec<Cell>>,
    row: usize,
    column: usize,
    state: State,
    /// The beginning of a character whose rest has not come yet.
    pending: Vec<u8>,
    /// Bytes that were written, for fairness between steps.
    pub(crate) written: u64,
}

/// One cell; the second cell of a wide character is empty.
type Cell = Option<char>;

#[derive(Debug, Default)]
enum State {
    #[default]
    Text,
    Escape,
    /// A control sequence, with its parameters so far.
    Control(String),
    /// A text for the terminal itself, such as a title; ended by a bell or a string terminator.
    Command,
    CommandEscape,
}

impl Default for Terminal {
    fn default() -> Self {
        Self {
            rows: VecDeque::from([Vec::new()]),
            row: 0,
            column: 0,
            state: State::Text,
            pending: Vec::new(),
            written: 0,
        }
    }
}

impl Terminal {
    pub(crate) fn write(&mut self, data: &[u8]) {
        self.written += data.len() as u64;
        let mut bytes = std::mem::take(&mut self.pending);
        bytes.extend_from_slice(data);
        for chunk in bytes.utf8_chunks() {
            chunk.valid().chars().for_each(|c| self.put(c));
            let invalid = chunk.invalid();
            let is_last =
                invalid.as_ptr_range().end == bytes.as_ptr_range().end && invalid.len() < 4;
            if !invalid.is_empty() && is_last && could_continue(invalid) {
                self.pending = invalid.to_vec();
            } else if !invalid.is_empty() {
                self.put(char::REPLACEMENT_CHARACTER);
            }
        }
    }

    /// The last rows that are not empty, at most `height` of them, cut to `width`.
    pub(crate) fn last_rows(&self, height: usize, width: usize) -> Vec<String> {
        let mut rows: Vec<String> = self
            .rows
            .iter()
            .rev()
            .map(|row| row.iter().take(width).filter_map(|&cell| cell).collect::<String>())
            .map(|row| row.trim_end().to_owned())
            .filter(|row| !row.is_empty())
            .take(height)
            .collect();
        rows.reverse();
        rows
    }

    fn put(&mut self, c: char) {
        match &mut self.state {
            State::Text => self.text(c),
            State::Escape => {
                self.state = match c {
                    '[' => State::Control(String::new()),
                    ']' | 'P' | 'X' | '^' | '_' => State::Command,
                    _ => State::Text,
                };
            }
            State::Control(parameters) => match c {
                '\u{40}'..='\u{7e}' => {
                    let parameters = std::mem::take(parameters);
                    self.state = State::Text;
                    self.control(c, &parameters);
                }
                ' '..='?' if parameters.len() < 64 => parameters.push(c),
                _ => self.state = State::Text,
            },
            State::Command => match c {
                '\u{7}' => self.state = State::Text,
                '\u{1b}' => self.state = State::CommandEscape,
                _ => {}
            },
            State::CommandEscape => {
                self.state = if c == '\\' { State::Text } else { State::Command };
            }
        }
    }

    fn text(&mut self, c: char) {
        match c {
            '\n' => {
                self.column = 0;
                self.row += 1;
                if self.row == self.rows.len() {
                    self.rows.push_back(Vec::new());
                }
                if self.rows.len() > ROWS {
                    self.rows.pop_front();
                    self.row -= 1;
                }
            }
            '\r' => self.column = 0,
            '\t' => self.column = ((self.column / TAB + 1) * TAB).min(COLUMNS),
            '\u{8}' => self.column = self.column.saturating_sub(1),
            '\u{1b}' => self.state = State::Escape,
            c => {
                // Control characters have no width, and those of none are not shown.
                let width = c.width().unwrap_or(0);
                if width > 0 && self.column + width <= COLUMNS {
                    self.set(self.column, Some(c));
                    if width == 2 {
                        self.set(self.column + 1, None);
                    }
                    self.column += width;
                }
            }
        }
    }

    fn set(&mut self, column: usize, cell: Cell) {
        let row = &mut self.rows[self.row];
        if row.len() <= column {
            row.resize(column + 1, Some(' '));
        }
        row[column] = cell;
    }

    fn control(&mut self, command: char, parameters: &str) {
        let first = parameters.split(';').next().and_then(|first| first.parse::<usize>().ok());
        let count = first.unwrap_or(1).max(1);
        match command {
            'A' => self.row = self.row.saturating_sub(count),
            'B' => self.row = self.row.saturating_add(count).min(self.rows.len() - 1),
            'C' => self.column = self.column.saturating_add(count).min(COLUMNS),
            'D' => self.column = self.column.saturating_sub(count),
            'E' => {
                self.row = self.row.saturating_add(count).min(self.rows.len() - 1);
                self.column = 0;
            }
            'F' => {
                self.row = self.row.saturating_sub(count);
                self.column = 0;
            }
            'G' => self.column = (count - 1).min(COLUMNS),
            'H' | 'f' if parameters.is_empty() => (self.row, self.column) = (0, 0),
            'J' if first.unwrap_or(0) == 0 => {
                self.erase_to_end();
                self.rows.truncate(self.row + 1);
            }
            'J' => {
                self.rows = VecDeque::from([Vec::new()]);
                (self.row, self.column) = (0, 0);
            }
            'K' => match first.unwrap_or(0) {
                0 => self.erase_to_end(),
                1 => {
                    let column = self.column.min(COLUMNS - 1);
                    (0..=column).for_each(|column| self.set(column, Some(' ')));
                }
                _ => self.rows[self.row].clear(),
            },
            _ => {}
        }
    }

    fn erase_to_end(&mut self) {
        let column = self.column;
        self.rows[self.row].truncate(column);
    }
}

/// Whether bytes may be the beginning of a character.
fn could_continue(bytes: &[u8]) -> bool {
    let needed = match bytes.first() {
        Some(0xc2..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf4) => 4,
        _ => return false,
    };
    bytes.len() < needed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(writes: &[&[u8]]) -> Vec<String> {
        let mut terminal = Terminal::default();
        for data in writes {
            terminal.write(data);
        }
        terminal.last_rows(6, 20)
    }

    #[test]
    fn the_screen_shows_what_a_terminal_would() {
        for (data, expected) in [
            (&b"a\nb\n"[..], vec!["a", "b"]),
            (b"10%\r20%\r", vec!["20%"]),
            (b"long\rab\x1b[K", vec!["ab"]),
            (b"\x1b[31mred\x1b[0m", vec!["red"]),
            (b"one\ntwo\x1b[1A\rONE\x1b[B", vec!["ONE", "two"]),
            (b"\x1b]0;title\x07x", vec!["x"]),
            (b"\x1b]0;title\x1b\\x", vec!["x"]),
            (b"a\tb", vec!["a       b"]),
            (b"ab\x08c", vec!["ac"]),
            (b"\x00\x01x\x7f", vec!["x"]),
            ("日本".as_bytes(), vec!["日本"]),
            (b"\xff!", vec!["\u{fffd}!"]),
            (b"1\n2\n3\n4\n5\n6\n7\n8", vec!["3", "4", "5", "6", "7", "8"]),
            (b"123456789012345678901234", vec!["12345678901234567890"]),
            (b"a\x1b[2Jb", vec!["b"]),
        ] {
            assert_eq!(shown(&[data]), expected, "{}", String::from_utf8_lossy(data));
        }
    }

    #[test]
    fn a_character_may_come_in_pieces() {
        assert_eq!(shown(&[b"\xe6\x97", b"\xa5!"]), ["日!"]);
        assert_eq!(shown(&[b"\x1b[3", b"1mx"]), ["x"]);
    }

    proptest! {
        #[test]
        fn nothing_that_is_written_breaks_the_screen(
            writes in prop::collection::vec(
                prop::collection::vec(
                    prop_oneof![any::<u8>(), prop::sample::select(b"\x1b[;0179ABCDEFGHJKm\r\n\t".to_vec())],
                    0..64,
                ),
                0..16,
            )
        ) {
            let mut terminal = Terminal::default();
            for data in &writes {
                terminal.write(data);
            }
            for row in terminal.last_rows(6, 20) {
                prop_assert!(!row.chars().any(char::is_control));
            }
        }
    }
}
