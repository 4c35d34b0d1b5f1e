//! How the room for evidence is divided. The same facts give the same cut.

use serde_json::{Value, json};

/// Bytes of a value as it is sent.
pub(super) fn size(value: &Value) -> usize {
    value.to_string().len()
}

/// The first entries that fit into `room` bytes, and how many do not.
pub(super) fn first(entries: Vec<Value>, room: usize) -> (Vec<Value>, usize) {
    let all = entries.len();
    let mut left = room;
    let kept: Vec<Value> = entries
        .into_iter()
        .take_while(|entry| {
            let fits = size(entry) < left;
            left -= if fits { size(entry) + 1 } else { 0 };
            fits
        })
        .collect();
    let left_out = all - kept.len();
    (kept, left_out)
}

/// Keeps the newest lines of all pods, in turns, until `budget` bytes are used. Pods go by numbers: their names hold the
/// revision.
pub(super) fn newest_of_all(mut pods: Vec<(String, Vec<String>)>, budget: usize) -> Value {
    pods.sort();
    let total: usize = pods.iter().map(|(_, lines)| lines.len()).sum();
    let mut keep = vec![0_usize; pods.len()];
    let mut left = budget;
    let mut more = true;
    while more {
        more = false;
        for (i, (_, lines)) in pods.iter().enumerate() {
            let Some(line) = lines.len().checked_sub(keep[i] + 1).and_then(|at| lines.get(at)) else { continue };
            let needed = size(&json!(line));
            if needed < left {
                left -= needed + 1;
                keep[i] += 1;
                more = true;
            }
        }
    }
    let kept: usize = keep.iter().sum();
    let shown: Vec<Value> = pods.iter().zip(&keep).map(|((_, lines), keep)| json!({"lines": &lines[lines.len() - keep..]})).collect();
    json!({"pods": shown, "linesLeftOut": total - kept})
}

/// The last lines of a text that begin within its last `max` bytes; a longer last line is given whole.
pub(super) fn newest(text: &str, max: usize) -> &str {
    let from = (0..=text.len().saturating_sub(max)).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    match text[from..].trim_end().find('\n') {
        Some(end) if from > 0 => &text[from + end + 1..],
        _ => &text[text[..from].rfind('\n').map_or(0, |i| i + 1)..],
    }
}

/// A line of at most `max` bytes.
pub(super) fn clip(line: &str, max: usize) -> String {
    let kept = crate::core::judge::templates::clip(line, max);
    if kept.len() == line.len() { line.to_owned() } else { format!("{kept}…") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(n: usize, text: &str) -> Vec<String> {
        (0..n).map(|i| format!("{text}{i}")).collect()
    }

    #[test]
    fn the_newest_lines_of_every_pod_share_the_budget() {
        let pods = vec![("b".to_owned(), lines(100, "busy ")), ("a".to_owned(), lines(2, "calm "))];
        let shown = newest_of_all(pods.clone(), 80);
        assert_eq!(shown["pods"][0], json!({"lines": ["calm 0", "calm 1"]}));
        let busy: Vec<&str> = shown["pods"][1]["lines"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
        assert_eq!(busy.last(), Some(&"busy 99"));
        let used: usize = busy.iter().map(|l| l.len() + 3).sum::<usize>() + 18;
        assert!(used <= 80 && used > 70, "{used}");
        assert_eq!(shown["linesLeftOut"], 102 - 2 - busy.len());
        let mut reversed = pods;
        reversed.reverse();
        assert_eq!(newest_of_all(reversed, 80), shown, "the order of the pods does not matter");
        assert_eq!(newest_of_all(vec![("a".into(), lines(3, "x"))], 1)["linesLeftOut"], 3);
    }

    #[test]
    fn only_whole_lines_are_taken() {
        assert_eq!(newest("one\ntwo\nthree\n", 100), "one\ntwo\nthree\n");
        assert_eq!(newest("one\ntwo\nthree\n", 8), "three\n");
        assert_eq!(newest("one\nlonger\n", 3), "longer\n");
    }

    #[test]
    fn long_lines_are_clipped_between_characters() {
        assert_eq!(clip("ééé", 3), "é…");
        assert_eq!(clip("abc", 3), "abc");
    }

    #[test]
    fn the_first_that_fit_are_kept() {
        let entries = vec![json!("aaaa"), json!("bb"), json!("c")];
        assert_eq!(first(entries.clone(), 100), (entries.clone(), 0));
        assert_eq!(first(entries.clone(), 9), (vec![json!("aaaa")], 2));
        assert_eq!(first(entries, 0), (vec![], 3));
    }
}
