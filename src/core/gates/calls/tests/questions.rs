use serde_json::json;

use super::{compare, gate, with};
use crate::core::gates::calls::{Arms, Question, Selector};

#[test]
fn every_mistake_has_its_path_and_says_what_to_write() {
    let histogram = |fields: serde_json::Value| {
        let mut base = json!({ "metric": "x_bucket", "edges": [1] });
        base.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        gate("compareHistogram", base)
    };
    let limit =
        |max: f64, below: f64| gate("absolute", json!({ "bad": "b", "total": "t", "maxRate": max, "passIf": { "rateBelow": below } }));
    for (gate, path, part) in [
        (with(compare(json!({})), 0.5), "falseAbort", "0.5 is not a chance between 0 and 0.5"),
        (with(compare(json!({})), 0.0), "falseAbort", "write 0.01"),
        (compare(json!({ "falsePromote": 0.7 })), "compare.falsePromote", "is not a chance"),
        (compare(json!({ "abortIf": { "oddsRatioAbove": 0.9 } })), "compare.abortIf.oddsRatioAbove", "write 1 or more"),
        (compare(json!({ "passIf": { "oddsRatioBelow": { "5": 1 } } })), "compare.passIf.oddsRatioBelow.5", "write more than 1"),
        (compare(json!({ "passIf": { "oddsRatioBelow": { "5%": 2 } } })), "compare.passIf.oddsRatioBelow.5%", "whole percentage"),
        (compare(json!({ "passIf": { "oddsRatioBelow": { "101": 2 } } })), "compare.passIf.oddsRatioBelow.101", "whole percentage"),
        (compare(json!({ "grid": [1.5, 1] })), "compare.grid[1]", "write more than 1"),
        (compare(json!({ "good": "ok_total" })), "compare", "exactly one of bad, good"),
        (compare(json!({ "interval": "10s" })), "compare.interval", "shorter than prometheus.scrapeInterval 15s"),
        (compare(json!({ "podLabel": "revision" })), "compare.podLabel", "the same label"),
        (compare(json!({ "bad": "rate(x[5m])" })), "compare.bad", "plain selector"),
        (compare(json!({ "total": "x offset 5m" })), "compare.total", "no offset"),
        (compare(json!({ "total": "x{revision=\"a\"}" })), "compare.total", "leave revision out"),
        (compare(json!({ "total": "x{" })), "compare.total", "not a valid PromQL query"),
        (histogram(json!({ "edges": [] })), "compareHistogram.edges", "at least one"),
        (histogram(json!({ "edges": [1, 1.0] })), "compareHistogram.edges[1]", "stands twice"),
        (histogram(json!({ "tolerance": 0.9 })), "compareHistogram.tolerance", "faster than stable"),
        (histogram(json!({ "passIf": { "slowdownBelow": { "5": 1.0 } } })), "compareHistogram.passIf.slowdownBelow.5", "more than 1"),
        (histogram(json!({ "metric": "x_bucket{le=\"1\"}" })), "compareHistogram.metric", "leave le out"),
        (limit(0.0, 0.5), "absolute.maxRate", "between 0 and 1"),
        (limit(0.2, 0.1), "absolute.passIf.rateBelow", "not between maxRate 0.2 and 1"),
        (gate("absolute", json!({ "bad": "b", "maxRate": 0.1 })), "absolute", "either total"),
        (gate("absolute", json!({ "bad": "b", "good": "g", "total": "t", "maxRate": 0.1 })), "absolute", "exactly one of bad, good"),
    ] {
        let errors = Question::of(&gate).unwrap().expect_err(path);
        assert!(errors.iter().any(|e| e.path == path && e.message.contains(part)), "{path} {part}: {errors:?}");
    }
}

#[test]
fn what_is_left_out_has_the_defaults() {
    let plain = compare(json!({}));
    let question = Question::of(&plain).unwrap().unwrap();
    assert_eq!((question.false_abort, question.false_promote, question.columns()), (0.01, 0.05, 2));
    let margins: Vec<(i32, f64)> = question.margins.iter().map(|m| (m.weight, m.odds_ratio)).collect();
    assert_eq!(margins, [(5, 4.0), (25, 3.0), (50, 2.0)]);
    let histogram = gate("compareHistogram", json!({ "metric": "x_bucket", "edges": [700, 900], "tolerance": 1.2 }));
    assert_eq!(Question::of(&histogram).unwrap().unwrap().columns(), 5, "all calls, 700, 840, 900, 1080");
    let limit = gate("absolute", json!({ "metric": "x_bucket", "above": 1.5, "maxRate": 0.05 }));
    let question = Question::of(&limit).unwrap().unwrap();
    assert!(question.one_arm() && question.margins[0].below == "10 % of calls bad", "{question:?}");
}

#[test]
fn selectors_are_narrowed_down_to_the_two_revisions() {
    let arms = Arms { label: "revision", canary: "c.1", stable: Some("s|2") };
    for (given, narrowed) in [
        ("x_total", "x_total{revision=~\"c\\\\.1|s\\\\|2\"}"),
        ("x_total{}", "x_total{revision=~\"c\\\\.1|s\\\\|2\"}"),
        ("x:total{tier=\"go\\\"ld\", z!=\"\"}", "x:total{tier=\"go\\\"ld\",z!=\"\",revision=~\"c\\\\.1|s\\\\|2\"}"),
        ("x{path=~\"/a.+|/b\", q!~\"x{2}\"}", "x{path=~\"/a.+|/b\",q!~\"x{2}\",revision=~\"c\\\\.1|s\\\\|2\"}"),
        ("{__name__=\"x\"}", "{__name__=\"x\",revision=~\"c\\\\.1|s\\\\|2\"}"),
    ] {
        let selector = Selector::parse(given).unwrap();
        assert_eq!(selector.of_arms(&arms), narrowed, "{given}");
        let again = Selector::parse(&selector.of_arms(&arms)).unwrap();
        assert_eq!(again.plain(), narrowed, "it can be read back");
    }
    let one = Arms { label: "version", canary: "c", stable: None };
    let buckets = Selector::parse("x_bucket").unwrap().of_buckets(&one, &["0.7", "+Inf"]);
    assert_eq!(buckets, "x_bucket{version=~\"c\",le=~\"0\\\\.7|\\\\+Inf\"}");
    for bad in ["sum(x)", "x[5m]", "x or y", "1", "x @ 5", "x{a=\"1\" or b=\"2\"}"] {
        assert!(Selector::parse(bad).is_err(), "{bad}");
    }
}
