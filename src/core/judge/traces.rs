//! Traces of one arm in sum: how many are slow or failing, and which spans fail or take the time.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use super::mask::mask;

/// A span, as far as it counts. Times are nanoseconds of Unix time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Id of its trace.
    pub trace: String,
    /// Its own id.
    pub id: String,
    /// Id of the span that it is part of; empty for none.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// When it began.
    pub start: u64,
    /// When it ended; before the start for a clock that was set back, which counts as no time.
    pub end: u64,
    /// Its status is an error.
    pub failed: bool,
}

/// Traces of one arm in sum.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Traces that were looked at.
    pub traces: usize,
    /// Of these, those that took longer than the limit.
    pub slow: usize,
    /// Of these, those with a span whose status is an error.
    pub failing: usize,
    /// Median and longest duration of a trace, in milliseconds.
    pub median_ms: f64,
    /// See `median_ms`.
    pub longest_ms: f64,
    /// Spans whose status is an error, by name: the most traces first.
    pub errors: Vec<Named>,
    /// All spans by name: the most time outside of their own child spans first.
    pub time: Vec<Named>,
}

/// Spans of one name. Numbers and ids in names are masked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Named {
    /// The name.
    pub name: String,
    /// Spans that have it.
    pub spans: usize,
    /// Traces that have such a span.
    pub traces: usize,
    /// Time in them and not in their child spans, in milliseconds, of all traces together.
    pub self_ms: f64,
}

/// Sums up; a span that occurs twice counts once. A trace is slow when more than `slow` lies between the start of its
/// first and the end of its last span. The same spans in any order give the same summary.
pub fn summary(mut spans: Vec<Span>, slow: Duration) -> Summary {
    spans.sort_by(|a, b| (&a.trace, a.start, &a.id, &a.name, a.end).cmp(&(&b.trace, b.start, &b.id, &b.name, b.end)));
    let mut seen: HashSet<(String, String)> = HashSet::new();
    spans.retain(|s| s.id.is_empty() || seen.insert((s.trace.clone(), s.id.clone())));
    let mut traces: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in &spans {
        traces.entry(&span.trace).or_default().push(span);
    }
    let mut lengths = Vec::new();
    let (mut errors, mut time) = (Counts::default(), Counts::default());
    let (mut is_slow, mut failing) = (0, 0);
    let limit = u64::try_from(slow.as_nanos()).unwrap_or(u64::MAX);
    for (id, of) in &traces {
        let start = of.iter().map(|s| s.start).min().unwrap_or(0);
        let end = of.iter().map(|s| s.end.max(s.start)).max().unwrap_or(0);
        let length = end.saturating_sub(start);
        lengths.push(length);
        is_slow += usize::from(length > limit);
        failing += usize::from(of.iter().any(|s| s.failed));
        let children = children(of);
        for span in of {
            let own = own_time(span, children.get(span.id.as_str()).map(Vec::as_slice).unwrap_or_default());
            time.add(span, id, own);
            if span.failed {
                errors.add(span, id, own);
            }
        }
    }
    lengths.sort_unstable();
    let mut errors = errors.named();
    errors.sort_by(|a, b| (b.traces, b.spans).cmp(&(a.traces, a.spans)).then_with(|| a.name.cmp(&b.name)));
    let mut time = time.named();
    time.sort_by(|a, b| b.self_ms.total_cmp(&a.self_ms).then_with(|| a.name.cmp(&b.name)));
    Summary {
        traces: traces.len(),
        slow: is_slow,
        failing,
        median_ms: lengths.get(lengths.len().saturating_sub(1) / 2).map_or(0.0, |n| ms(*n)),
        longest_ms: lengths.last().map_or(0.0, |n| ms(*n)),
        errors,
        time,
    }
}

/// Child spans by their parent's id, in the order of their starts.
fn children<'a>(of: &[&'a Span]) -> BTreeMap<&'a str, Vec<&'a Span>> {
    let mut children: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in of.iter().filter(|s| !s.parent.is_empty() && s.parent != s.id) {
        children.entry(&span.parent).or_default().push(span);
    }
    children
}

/// Nanoseconds of a span in which none of its child spans ran. Those are in the order of their starts.
fn own_time(span: &Span, children: &[&Span]) -> u64 {
    let end = span.end.max(span.start);
    let (mut own, mut at) = (end - span.start, span.start);
    for child in children {
        let (from, to) = (child.start.clamp(at, end), child.end.clamp(at, end));
        own -= to.saturating_sub(from);
        at = at.max(to);
    }
    own
}

/// Spans by masked name.
#[derive(Default)]
struct Counts<'a>(BTreeMap<String, (usize, BTreeSet<&'a str>, u64)>);

impl<'a> Counts<'a> {
    fn add(&mut self, span: &Span, trace: &'a str, own: u64) {
        let mut name = String::with_capacity(span.name.len());
        mask(&span.name, &mut name);
        let (spans, traces, time) = self.0.entry(name).or_default();
        *spans += 1;
        traces.insert(trace);
        *time = time.saturating_add(own);
    }

    fn named(self) -> Vec<Named> {
        let named = |(name, (spans, traces, time)): (String, (usize, BTreeSet<&str>, u64))| Named {
            name,
            spans,
            traces: traces.len(),
            self_ms: ms(time),
        };
        self.0.into_iter().map(named).collect()
    }
}

#[allow(clippy::cast_precision_loss)] // for people and models
fn ms(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn span(trace: &str, id: &str, parent: &str, name: &str, start: u64, end: u64, failed: bool) -> Span {
        let base = 1_767_261_600_000 * MS;
        let owned = str::to_owned;
        Span {
            trace: owned(trace),
            id: owned(id),
            parent: owned(parent),
            name: owned(name),
            start: base + start * MS,
            end: base + end * MS,
            failed,
        }
    }

    /// Two traces: one of 900 ms whose tool fails, one of 2.5 s.
    fn spans() -> Vec<Span> {
        vec![
            span("t1", "a", "", "turn", 0, 900, false),
            span("t1", "b", "a", "llm", 100, 500, false),
            // Two tools at the same time, one beyond the end of the turn.
            span("t1", "c", "a", "tool 17", 500, 700, true),
            span("t1", "d", "a", "tool 18", 600, 1000, false),
            span("t2", "a", "", "turn", 0, 2500, false),
            span("t2", "b", "a", "llm", 0, 2400, false),
        ]
    }

    fn of<'a>(named: &'a [Named], name: &str) -> &'a Named {
        named.iter().find(|n| n.name == name).unwrap_or_else(|| panic!("{name} in {named:?}"))
    }

    #[test]
    fn slow_and_failing_traces_are_counted_and_time_is_where_no_child_runs() {
        let all = summary(spans(), Duration::from_secs(2));
        assert_eq!((all.traces, all.slow, all.failing), (2, 1, 1));
        assert_eq!((all.median_ms, all.longest_ms), (1000.0, 2500.0));
        assert_eq!(all.errors, [Named { name: "tool <num>".into(), spans: 1, traces: 1, self_ms: 200.0 }]);
        assert_eq!(all.time.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["llm", "tool <num>", "turn"]);
        let (llm, tool, turn) = (of(&all.time, "llm"), of(&all.time, "tool <num>"), of(&all.time, "turn"));
        assert_eq!((llm.spans, llm.traces, llm.self_ms), (2, 2, 2800.0));
        assert_eq!((tool.spans, tool.traces, tool.self_ms), (2, 1, 600.0));
        // 100 ms before the model, none between it and the tools, none after; and 100 ms in the other trace.
        assert_eq!((turn.spans, turn.self_ms), (2, 200.0));
        let limit = summary(spans(), Duration::from_millis(2500));
        assert_eq!(limit.slow, 0, "not longer than the limit");
    }

    #[test]
    fn order_and_repetition_change_nothing() {
        let all = summary(spans(), Duration::from_secs(2));
        let mut twice: Vec<Span> = spans().into_iter().chain(spans()).collect();
        twice.reverse();
        assert_eq!(summary(twice, Duration::from_secs(2)), all);
        assert_eq!(summary(Vec::new(), Duration::from_secs(2)), Summary::default());
    }

    #[test]
    fn odd_spans_neither_panic_nor_count_time_that_is_none() {
        let odd = vec![
            Span { trace: "t".into(), id: "a".into(), parent: "a".into(), name: "self".into(), start: 5, end: 9, failed: false },
            Span { trace: "t".into(), id: "b".into(), parent: "c".into(), name: "back".into(), start: u64::MAX, end: 0, failed: true },
            Span { trace: "t".into(), id: "c".into(), parent: "b".into(), name: "loop".into(), start: 0, end: u64::MAX, failed: false },
            Span { trace: "u".into(), ..Span::default() },
            Span { trace: "u".into(), ..Span::default() },
        ];
        let all = summary(odd, Duration::ZERO);
        assert_eq!((all.traces, all.slow, all.failing), (2, 1, 1));
        assert_eq!(of(&all.time, "back").self_ms, 0.0);
        assert_eq!(of(&all.time, "").spans, 2, "spans without an id are told apart by nothing");
    }
}
