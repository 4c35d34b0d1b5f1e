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

/// What the terminal can show.
#[derive(Clone, Copy, Debug, Default)]
pub struct Paint {
    /// Whether to colour.
    pub colour: bool,
    /// Characters of a line; `None` where lines are not broken, as in a file.
    pub width: Option<usize>,
}

/// The last column of a table is broken where it has at least this many characters of a line, and begins below the
/// others where it has fewer.
const LEAST: usize = 28;
/// How far what begins below is moved to the right.
const INDENT: usize = 4;

impl Paint {
    /// The same for lines that begin so many characters further right.
    pub fn indented(self, by: usize) -> Self {
        Self { width: self.width.map(|w| w.saturating_sub(by).max(LEAST)), ..self }
    }

    /// A text as lines of the terminal's width.
    pub fn wrapped(self, text: &str) -> Vec<String> {
        self.width.map_or_else(|| vec![clean(text)], |width| wrap(&clean(text), width))
    }

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

/// Lines of the rows, columns two spaces apart, without spaces at the end. What is too long for the terminal goes on in
/// lines of its own, below the beginning of the row's last cell; where not even the cells before it have room, all that do
/// not fit do.
pub fn lines<const N: usize>(paint: Paint, table: &[[Cell; N]]) -> Vec<String> {
    rows(paint, &table.iter().map(<[Cell; N]>::as_slice).collect::<Vec<_>>())
}

/// The same of rows whose number of cells is not known before; each row has as many.
pub fn rows(paint: Paint, table: &[&[Cell]]) -> Vec<String> {
    let last = |row: &[Cell]| row.iter().rposition(|cell| !cell.text.is_empty());
    // The last cell of a row takes what is left: it makes no column wide, where lines are broken.
    let counts = |row: &[Cell], column: usize| paint.width.is_none() || last(row).is_some_and(|last| column < last);
    let width = |column: usize| {
        let cells = table.iter().filter(|row| counts(row, column)).filter_map(|row| row.get(column));
        cells.map(|cell| cell.text.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..table.first().map_or(0, |row| row.len())).map(width).collect();
    table.iter().flat_map(|row| line(paint, row, &widths)).collect()
}

fn line(paint: Paint, row: &[Cell], widths: &[usize]) -> Vec<String> {
    let Some(last) = row.iter().rposition(|cell| !cell.text.is_empty()) else { return vec![String::new()] };
    let mut out = String::new();
    for (cell, width) in row[..last].iter().zip(widths) {
        out.push_str(&paint.ink(cell.ink, &cell.text));
        out.push_str(&" ".repeat(width.saturating_sub(cell.text.chars().count()) + 2));
    }
    let start: usize = widths[..last].iter().map(|w| w + 2).sum();
    if let Some(all) = paint.width.filter(|width| start > *width) {
        return flow(paint, &row[..=last], widths, all);
    }
    let Cell { text, ink } = &row[last];
    let Some(all) = paint.width.filter(|width| start + text.chars().count() > *width) else {
        return vec![out + &paint.ink(*ink, text)];
    };
    let below = last > 0 && all.saturating_sub(start) < LEAST;
    let indent = if below { INDENT } else { start };
    let mut parts = wrap(text, all.saturating_sub(indent)).into_iter();
    let mut lines = Vec::new();
    if below {
        lines.push(out.trim_end().to_owned());
    } else {
        lines.extend(parts.next().map(|part| out + &paint.ink(*ink, &part)));
    }
    lines.extend(parts.map(|part| format!("{}{}", " ".repeat(indent), paint.ink(*ink, &part))));
    lines
}

/// Cells side by side as far as there is room, then on lines of their own.
fn flow(paint: Paint, row: &[Cell], widths: &[usize], all: usize) -> Vec<String> {
    let (mut lines, mut line, mut used) = (Vec::new(), String::new(), 0);
    for (cell, width) in row.iter().zip(widths).filter(|(cell, _)| !cell.text.is_empty()) {
        let first = lines.is_empty();
        let mut parts = wrap(&cell.text, all.saturating_sub(INDENT)).into_iter().peekable();
        while let Some(part) = parts.next() {
            let count = part.chars().count();
            if used + count > all && used > INDENT {
                lines.push(std::mem::take(&mut line).trim_end().to_owned());
                (line, used) = (" ".repeat(INDENT), INDENT);
            }
            line.push_str(&paint.ink(cell.ink, &part));
            // Columns below each other on the first lines of rows; a part that is not the last one fills its line.
            let gap = match parts.peek() {
                Some(_) => all,
                None if first && lines.is_empty() => width.saturating_sub(count) + 2,
                None => 2,
            };
            line.push_str(&" ".repeat(gap.min(all)));
            used += count + gap;
        }
    }
    lines.push(line.trim_end().to_owned());
    lines
}

/// Breaks a text between words, and words that are longer than a line.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut rest: Vec<char> = word.chars().collect();
        loop {
            let line = lines.last_mut().expect("there is a line");
            let used = line.chars().count();
            let space = usize::from(used > 0);
            if used + space + rest.len() <= width {
                line.extend(std::iter::repeat_n(' ', space).chain(rest));
                break;
            }
            if used > 0 {
                lines.push(String::new());
                continue;
            }
            line.extend(rest.drain(..width));
            lines.push(String::new());
        }
    }
    lines
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
        assert_eq!(lines(Paint { colour: true, width: None }, &rows), ["\x1b[31ma\x1b[0m     b", "long  c"]);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(clean("a\x1b[2J\nb\tc\u{9b}d\x07"), "a [2J b c d");
    }

    #[test]
    fn what_is_too_long_goes_on_below_its_beginning_or_below_the_row() {
        let rows = [["gate".into(), "one two three four five six seven eight nine".into()], ["g".into(), "short".into()]];
        let width = |width| Paint { colour: false, width: Some(width) };
        let wide = lines(width(36), &rows);
        assert_eq!(wide, ["gate  one two three four five six", "      seven eight nine", "g     short"]);
        let narrow = lines(width(30), &rows);
        assert_eq!(narrow, ["gate", "    one two three four five", "    six seven eight nine", "g     short"]);
    }

    #[test]
    fn no_line_is_longer_than_the_terminal_and_nothing_is_lost() {
        let text = "a registry.example.test/agents/voice-agent-with-a-long-name@sha256:0123456789abcdef b";
        for width in 1..90 {
            let broken = wrap(text, width);
            assert!(broken.iter().all(|l| l.chars().count() <= width), "{width}: {broken:?}");
            assert_eq!(broken.concat().replace(' ', ""), text.replace(' ', ""), "{width}");
        }
    }

    #[test]
    fn cells_without_room_beside_the_others_go_on_below() {
        let row = |cells: [&str; 4]| cells.map(Cell::from);
        let table = [row(["first-token", "canary 46 of 576", "odds 1.2", "data of 3m ago"]), row(["b", "canary 1 of 9", "odds 1", "new"])];
        for (width, expected) in [
            (60, vec!["first-token  canary 46 of 576  odds 1.2  data of 3m ago", "b            canary 1 of 9     odds 1    new"]),
            (36, vec!["first-token  canary 46 of 576", "    odds 1.2  data of 3m ago", "b            canary 1 of 9", "    odds 1  new"]),
            (
                16,
                vec![
                    "first-token",
                    "    canary 46 of",
                    "    576",
                    "    odds 1.2",
                    "    data of 3m",
                    "    ago",
                    "b",
                    "    canary 1 of",
                    "    9  odds 1",
                    "    new",
                ],
            ),
        ] {
            let shown = lines(Paint { colour: false, width: Some(width) }, &table);
            assert_eq!(shown, expected, "{width}");
            assert!(shown.iter().all(|line| line.chars().count() <= width), "{width}: {shown:#?}");
        }
    }
}
