//! Aligned columns and colours for a terminal.

/// Colours of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// As it is.
    Plain,
    /// Bold.
    Bold,
    /// Less visible.
    Dim,
    /// Something failed.
    Red,
    /// Something is well.
    Green,
    /// Something waits.
    Yellow,
    /// Something is under way.
    Cyan,
}

impl Ink {
    /// SGR parameter (ECMA-48, 8.3.117).
    fn code(self) -> Option<u8> {
        match self {
            Self::Plain => None,
            Self::Bold => Some(1),
            Self::Dim => Some(2),
            Self::Red => Some(31),
            Self::Green => Some(32),
            Self::Yellow => Some(33),
            Self::Cyan => Some(36),
        }
    }
}

/// Whether to colour.
#[derive(Clone, Copy, Debug, Default)]
pub struct Paint {
    /// Whether to colour.
    pub colour: bool,
}

impl Paint {
    /// The text in a colour.
    pub fn ink(self, ink: Ink, text: &str) -> String {
        match ink.code().filter(|_| self.colour && !text.is_empty()) {
            Some(code) => format!("\x1b[{code}m{text}\x1b[0m"),
            None => text.to_owned(),
        }
    }
}

/// A text that cannot move the cursor: what providers, judges and people wrote may hold control characters.
pub fn clean(text: &str) -> String {
    let spaced: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A cell.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    ink: Ink,
}

impl Cell {
    /// A cell in a colour.
    pub fn new(ink: Ink, text: impl AsRef<str>) -> Self {
        Self { text: clean(text.as_ref()), ink }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(Ink::Plain, text)
    }
}

/// Lines of the rows, columns two spaces apart, without spaces at the end.
pub fn lines<const N: usize>(paint: Paint, rows: &[[Cell; N]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].text.chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    rows.iter().map(|row| line(paint, row, &widths)).collect()
}

fn line(paint: Paint, row: &[Cell], widths: &[usize]) -> String {
    let last = row.iter().rposition(|cell| !cell.text.is_empty()).map_or(0, |at| at + 1);
    let mut out = String::new();
    for (at, cell) in row[..last].iter().enumerate() {
        out.push_str(&paint.ink(cell.ink, &cell.text));
        if at + 1 < last {
            out.push_str(&" ".repeat(widths[at] - cell.text.chars().count() + 2));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".into(), "b".into(), "c".into()], ["long".into(), "".into(), "d".into()], ["x".into(), "".into(), "".into()]];
        assert_eq!(lines(Paint::default(), &rows), ["a     b  c", "long     d", "x"]);
    }

    #[test]
    fn colours_do_not_shift_columns() {
        let rows = [[Cell::new(Ink::Red, "a"), "b".into()], ["long".into(), "c".into()]];
        assert_eq!(lines(Paint { colour: true }, &rows), ["\x1b[31ma\x1b[0m     b", "long  c"]);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(clean("a\x1b[2J\nb\tc\u{9b}d\x07"), "a [2J b c d");
    }
}
