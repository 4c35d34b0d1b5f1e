//! Lines of fields in a YAML text.

use std::collections::BTreeMap;

use granit_parser::{Event, Parser};

/// Where the fields of one document begin, by their path: `spec.steps[2].pause`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    first: usize,
    lines: BTreeMap<String, usize>,
}

impl Positions {
    /// Line of the field, or of the nearest one around it that is there; counting from 1.
    pub fn line(&self, path: &str) -> usize {
        let mut at = path;
        loop {
            if let Some(line) = self.lines.get(at) {
                return *line;
            }
            match at.rfind(['.', '[']) {
                Some(end) => at = &at[..end],
                None => return self.first,
            }
        }
    }
}

/// A list or mapping that is open.
enum Open {
    /// Index of the next item.
    List { path: String, next: usize },
    /// Key whose value comes next.
    Map { path: String, key: Option<String> },
}

/// Positions of each document of a text, in order. What comes after a mistake is left out: whoever parses the text says
/// what is wrong.
pub fn read(text: &str) -> Vec<Positions> {
    let mut documents = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let Ok((event, span)) = event else { break };
        let line = span.start.line();
        match event {
            Event::DocumentStart(..) => {
                // The line of `---` says less than that of the first field.
                documents.push(Positions::default());
                open.clear();
            }
            Event::Scalar(word, ..) => {
                if let Some(Open::Map { path, key: key @ None }) = open.last_mut() {
                    let whole = if path.is_empty() { word.to_string() } else { format!("{path}.{word}") };
                    note(&mut documents, whole, line);
                    *key = Some(word.into_owned());
                } else {
                    value(&mut documents, &mut open, line);
                }
            }
            Event::Alias(_) => drop(value(&mut documents, &mut open, line)),
            Event::SequenceStart(..) => {
                let path = value(&mut documents, &mut open, line);
                open.push(Open::List { path, next: 0 });
            }
            Event::MappingStart(..) => {
                let path = value(&mut documents, &mut open, line);
                open.push(Open::Map { path, key: None });
            }
            Event::SequenceEnd | Event::MappingEnd => drop(open.pop()),
            _ => {}
        }
    }
    documents
}

/// A value begins; its path.
fn value(documents: &mut [Positions], open: &mut [Open], line: usize) -> String {
    match open.last_mut() {
        None => {
            note(documents, String::new(), line);
            String::new()
        }
        Some(Open::List { path, next }) => {
            let item = format!("{path}[{next}]");
            *next += 1;
            note(documents, item.clone(), line);
            item
        }
        // The key has the line.
        Some(Open::Map { path, key }) => match (key.take(), path.as_str()) {
            (Some(key), "") => key,
            (Some(key), path) => format!("{path}.{key}"),
            (None, path) => path.to_owned(),
        },
    }
}

fn note(documents: &mut [Positions], path: String, line: usize) {
    let Some(document) = documents.last_mut() else { return };
    if document.first == 0 {
        document.first = line;
    }
    // Of a key that occurs twice the last one counts, as for most parsers; the others refuse it.
    document.lines.insert(path, line);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# a comment
kind: A
spec:
  steps:
  - setWeight: 5
  - pause: {duration: 5m}
  - analysis:
      gates:
        - name: x
          threshold: &t
            query: |
              a
              + b
        - name: y
          threshold: *t
---
kind: B
metadata: {name: b, labels: {\"a.b/c\": d}}
";

    #[test]
    fn every_field_has_its_line() {
        let documents = read(TEXT);
        assert_eq!(documents.len(), 2);
        for (path, line) in [
            ("kind", 2),
            ("spec", 3),
            ("spec.steps", 4),
            ("spec.steps[0]", 5),
            ("spec.steps[1].pause.duration", 6),
            ("spec.steps[2].analysis.gates[0].name", 9),
            ("spec.steps[2].analysis.gates[0].threshold.query", 11),
            ("spec.steps[2].analysis.gates[1]", 14),
            ("spec.steps[2].analysis.gates[1].threshold.query", 15),
        ] {
            assert_eq!(documents[0].line(path), line, "{path}");
        }
        assert_eq!(documents[1].line("metadata.labels.a.b/c"), 18);
    }

    #[test]
    fn a_field_that_is_not_there_has_the_line_of_what_is_around_it() {
        let documents = read(TEXT);
        assert_eq!(documents[0].line("spec.steps[0].pause"), 5);
        assert_eq!(documents[0].line("spec.steps[9]"), 4);
        assert_eq!(documents[0].line("spec.traffic.istio"), 3);
        assert_eq!(documents[0].line("metadata.name"), 2);
        assert_eq!(documents[1].line("spec"), 17);
    }

    #[test]
    fn a_text_with_a_mistake_is_read_up_to_it() {
        let documents = read("kind: A\nspec:\n  a: [1, 2\n  b: 3\n");
        assert_eq!(documents[0].line("spec"), 2);
        assert_eq!(read(""), Vec::new());
    }
}
