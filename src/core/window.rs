//! How far a PromQL query looks back, and when its first measurement tells something about the canary.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use promql_parser::parser::{Expr, Offset, VectorSelector};

use super::SpecError;

/// Deepest nesting of brackets in a query.
const MAX_NESTING: usize = 64;
/// Most operators in a query; the parser's tree gets one level deeper with each.
const MAX_OPERATORS: usize = 400;

/// The longest time a query looks back from the moment it is asked: range selectors, and subqueries with everything
/// inside them, each with its offset. Zero for a query of current values.
///
/// # Errors
/// When the query is not PromQL; the error's path is `path`.
pub fn longest(query: &str, path: &str) -> Result<Duration, SpecError> {
    limits(query).map_err(|reason| SpecError::new(path, reason))?;
    match promql_parser::parser::parse(query) {
        Ok(expression) => Ok(look_back(&expression)),
        Err(reason) => Err(SpecError::new(path, format!("not a valid PromQL query: {}", reason.trim()))),
    }
}

fn limits(query: &str) -> Result<(), String> {
    let (mut depth, mut operators) = (0_usize, 0_usize);
    for c in query.chars() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '+' | '-' | '*' | '/' | '%' | '^' => operators += 1,
            _ => {}
        }
        if depth > MAX_NESTING {
            return Err(format!("the query is nested more than {MAX_NESTING} deep"));
        }
    }
    operators += query.split_whitespace().filter(|w| matches!(w.to_ascii_lowercase().as_str(), "and" | "or" | "unless")).count();
    if operators > MAX_OPERATORS { Err(format!("the query has more than {MAX_OPERATORS} operators")) } else { Ok(()) }
}

fn look_back(expression: &Expr) -> Duration {
    match expression {
        Expr::Aggregate(a) => look_back(&a.expr).max(a.param.as_deref().map(look_back).unwrap_or_default()),
        Expr::Unary(u) => look_back(&u.expr),
        Expr::Binary(b) => look_back(&b.lhs).max(look_back(&b.rhs)),
        Expr::Paren(p) => look_back(&p.expr),
        Expr::Subquery(s) => shifted(s.range.saturating_add(look_back(&s.expr)), s.offset.as_ref()),
        Expr::MatrixSelector(m) => selector(&m.vs, m.range),
        Expr::VectorSelector(v) => selector(v, Duration::ZERO),
        Expr::Call(c) => c.args.args.iter().map(|a| look_back(a)).max().unwrap_or_default(),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => Duration::ZERO,
    }
}

fn selector(vector: &VectorSelector, range: Duration) -> Duration {
    shifted(range, vector.offset.as_ref())
}

/// An offset moves the window into the past; a negative one moves it towards now.
fn shifted(range: Duration, offset: Option<&Offset>) -> Duration {
    match offset {
        Some(Offset::Pos(by)) => range.saturating_add(*by),
        Some(Offset::Neg(by)) => range.saturating_sub(*by),
        None => range,
    }
}

/// When a gate's first measurement may be taken: when nothing in the query's window is older than the weight and one
/// scrape has come since; not before the run began; and then `initial_delay` later. `window` is `None` for providers
/// without one.
pub fn first_measurement_at(
    run_start: Timestamp,
    traffic_since: Option<Timestamp>,
    window: Option<Duration>,
    scrape_interval: Duration,
    initial_delay: Duration,
) -> Timestamp {
    let settled = match (traffic_since, window) {
        (Some(since), Some(window)) => add(since, window.saturating_add(scrape_interval)),
        _ => run_start,
    };
    add(settled.max(run_start), initial_delay)
}

/// Why the first measurement waits, for the status.
pub fn waiting(until: Timestamp, traffic_since: Option<Timestamp>, window: Option<Duration>, now: Timestamp) -> String {
    match (traffic_since, window) {
        _ if until <= now => "the first measurement is due".into(),
        (Some(since), Some(window)) if window > Duration::ZERO => {
            format!("waits until {}: the query looks back {}, and the weight changed at {}", clock(until), span(window), clock(since))
        }
        _ => format!("waits until {} for its first measurement", clock(until)),
    }
}

/// `at + by`, or the end of time.
pub fn add(at: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| at.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

/// Time of day in UTC, `10:05:15Z`.
pub fn clock(at: Timestamp) -> String {
    at.strftime("%H:%M:%SZ").to_string()
}

/// A duration as people write it: `1h30m`, `5m`, `250ms`.
pub fn span(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    let parts = [(seconds / 3600, "h"), (seconds % 3600 / 60, "m"), (seconds % 60, "s"), (u64::from(millis), "ms")];
    let text: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { "0s".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_window_of_a_query() {
        for (query, expected) in [
            ("up", "0s"),
            ("histogram_quantile(0.95, sum by (le) (rate(voice_first_token_ms_bucket{version=\"v2\"}[5m])))", "5m"),
            ("rate(a[1m]) / rate(b[10m])", "10m"),
            ("rate(a[5m] offset 10m)", "15m"),
            ("rate(a[5m] offset -2m)", "3m"),
            ("max_over_time(rate(a[5m])[30m:1m])", "35m"),
            ("max_over_time(avg_over_time(rate(a[5m])[30m:1m])[1h:] offset 1h)", "2h35m"),
            ("a offset 1h", "1h"),
            ("topk(scalar(rate(a[7m])), b)", "7m"),
            ("-(rate(a[90s]))", "1m30s"),
            ("1 + 2", "0s"),
        ] {
            assert_eq!(span(longest(query, "q").unwrap()), expected, "{query}");
        }
    }

    #[test]
    fn bad_queries_are_errors_with_their_path() {
        let deep = format!("{}a{}", "(".repeat(4000), ")".repeat(4000));
        let wide = format!("a{}", " or a".repeat(1500));
        for query in ["rate(a[5m)", "rate(a)", "", "a{b=c}", "nosuch(a)", deep.as_str(), wide.as_str()] {
            let error = longest(query, "spec.x").expect_err(query);
            assert_eq!(error.path, "spec.x");
            assert!(error.message.contains("query"), "{}", error.message);
        }
    }

    #[test]
    fn the_largest_query_that_is_accepted_fits_a_small_stack() {
        let wide = format!("a{}", " + a".repeat(MAX_OPERATORS));
        let deep = format!("{}a{}", "(".repeat(MAX_NESTING), ")".repeat(MAX_NESTING));
        let worker = std::thread::Builder::new().stack_size(1 << 20).spawn(move || [longest(&wide, ""), longest(&deep, "")]);
        assert_eq!(worker.unwrap().join().unwrap(), [Ok(Duration::ZERO), Ok(Duration::ZERO)]);
    }

    #[test]
    fn first_measurement_waits_for_its_window() {
        let at = |s: &str| s.parse::<Timestamp>().unwrap();
        let s = Duration::from_secs;
        let (start, since) = (at("2026-01-01T10:00:05Z"), Some(at("2026-01-01T10:00:00Z")));
        let first = first_measurement_at(start, since, Some(s(300)), s(15), s(0));
        assert_eq!(first, at("2026-01-01T10:05:15Z"));
        assert_eq!(
            waiting(first, since, Some(s(300)), start),
            "waits until 10:05:15Z: the query looks back 5m, and the weight changed at 10:00:00Z"
        );
        assert_eq!(first_measurement_at(start, since, Some(s(300)), s(15), s(30)), at("2026-01-01T10:05:45Z"));
        assert_eq!(first_measurement_at(start, since, None, s(15), s(30)), at("2026-01-01T10:00:35Z"));
        assert_eq!(first_measurement_at(start, None, Some(s(300)), s(15), s(0)), start);
        // A pause longer than the window has made the wait unnecessary.
        let late = at("2026-01-01T11:00:00Z");
        assert_eq!(first_measurement_at(late, since, Some(s(300)), s(15), s(10)), at("2026-01-01T11:00:10Z"));
    }
}
