use serde_json::json;

use super::*;

fn verdict(success: &str, failure: &str, value: Value) -> Verdict {
    let some = |s| Some(s).filter(|s: &&str| !s.is_empty());
    evaluate(some(success), some(failure), &value).0
}

#[test]
fn table_of_conditions() {
    use Verdict::{Error, Fail, Inconclusive, Pass};
    let cases: &[(&str, &str, Value, Verdict)] = &[
        ("result >= 0.92", "", json!(0.95), Pass),
        ("result >= 0.92", "", json!(0.91), Fail),
        ("result[0] >= 0.92", "", json!(0.95), Pass),
        ("result[0] >= 0.92", "", json!([0.95]), Pass),
        ("result >= 0.92", "", json!([0.95]), Pass),
        ("result >= 1", "", json!(1), Pass),
        ("result >= 1", "", json!(1.5), Pass),
        ("result == 1", "", json!(1.0), Pass),
        ("result != 1", "", json!(1.0), Fail),
        ("result * 100 >= 92", "", json!(0.93), Pass),
        ("result / 2 > 1", "", json!(3), Pass),
        ("result % 2 == 1", "", json!(3), Pass),
        ("-result <= 0", "", json!(0.0), Pass),
        ("", "result > 800", json!(700), Pass),
        ("", "result > 800", json!(801), Fail),
        ("result <= 800", "result > 1000", json!(900), Inconclusive),
        ("result <= 800", "result > 1000", json!(700), Pass),
        ("result <= 2000", "result > 1000", json!(1500), Fail),
        ("result <= 800", "", json!("NaN"), Inconclusive),
        ("", "result > 800", json!("NaN"), Inconclusive),
        ("result[0] <= 800", "", json!(["NaN", 3]), Inconclusive),
        ("result[0] / result[1] < 1", "", json!([0, 0]), Inconclusive),
        ("!isNaN(result) && result <= 800", "", json!("NaN"), Fail),
        ("isNaN(result) || result <= 800", "", json!("NaN"), Pass),
        ("default(result, 0) <= 800", "", json!("NaN"), Pass),
        ("default(result[0], 0) <= 800", "", json!([]), Pass),
        ("isNaN(result[0]) || result[0] <= 800", "", json!([]), Inconclusive),
        ("result[0] <= 800", "", json!([]), Inconclusive),
        ("result <= 800", "", json!(null), Inconclusive),
        ("size(result) == 0 || result[0] <= 800", "", json!([]), Pass),
        ("size(result) == 2", "", json!([1, 2]), Pass),
        ("result.size() == 2", "", json!([1, 2]), Pass),
        ("result[size(result) - 1] == 2", "", json!([1, 2]), Pass),
        ("isInf(result)", "", json!("+Inf"), Pass),
        ("result <= 800", "", json!("+Inf"), Fail),
        ("result.all(x, x < 3)", "", json!([1, 2]), Pass),
        ("result.all(x, x < 2)", "", json!([1, 2]), Fail),
        ("result.exists(x, x == 2)", "", json!([1, 2]), Pass),
        ("result.filter(x, x > 1).size() == 1", "", json!([1, 2]), Pass),
        ("sum(result.map(x, x * 2)) == 6", "", json!([1, 2]), Pass),
        ("result.exists_one(x, x == 2)", "", json!([1, 2]), Pass),
        ("max(result) <= 3 && mean(result) == 2 && min(result) == 1", "", json!([1, 2, 3]), Pass),
        ("min(result, 3) == 2", "", json!(2), Pass),
        ("asInt(result) == 3 && asFloat('0.5') < result", "", json!(3.7), Pass),
        ("result == 'ok'", "", json!("ok"), Pass),
        ("result.startsWith('o') && result.matches('^o.$')", "", json!("ok"), Pass),
        ("result in ['ok', 'fine']", "", json!("ok"), Pass),
        ("[1, 2].exists(x, x == result)", "", json!(2), Pass),
        ("result.all(x, x <= result[0])", "", json!([2, 1]), Pass),
        ("2 in result", "", json!([1, 2]), Pass),
        ("result", "", json!(true), Pass),
        ("result ? true : false", "", json!(false), Fail),
        ("result == 'ok'", "", json!(3), Error),
        ("result > 3", "", json!("many"), Error),
        ("result + 1", "", json!(3), Error),
        ("result[3] > 1", "", json!([1]), Error),
        ("result > 1", "", json!([1, 2]), Error),
        ("result > 1", "", json!({ "a": 1 }), Error),
        ("int(result) / 0 > 1", "", json!(1), Error),
        ("size(result) / 2 == 1.5", "", json!([1, 2, 3]), Pass),
        ("int(result) / 0 > 1", "", json!(0), Inconclusive),
    ];
    for (success, failure, value, expected) in cases {
        assert_eq!(verdict(success, failure, value.clone()), *expected, "{success} | {failure} | {value}");
    }
}

#[test]
fn messages_name_value_and_condition() {
    let message = |s, f, v| evaluate(s, f, &v).1;
    assert_eq!(message(Some("result <= 800"), None, json!(812.4)), "value 812.4 does not meet result <= 800");
    assert_eq!(message(Some("result[0] <= 800"), None, json!([812.4])), "value 812.4 does not meet result[0] <= 800");
    assert_eq!(message(Some("result >= 0.92"), None, json!(0.95)), "value 0.95 meets result >= 0.92");
    assert_eq!(message(None, Some("result > 5"), json!(7)), "value 7 meets the failure condition result > 5");
    assert_eq!(message(Some("result <= 800"), None, json!("NaN")), "value NaN does not decide result <= 800: the value is NaN");
    assert_eq!(
        message(Some("result[2] <= 800"), None, json!([1, 2])),
        "`result[2] <= 800` cannot be applied to [1, 2]: there is no value with this index"
    );
}

#[test]
fn what_is_not_understood_is_refused() {
    for (source, part) in [
        ("result >=", "column"),
        ("", "empty"),
        ("result.p95 <= 3", "no fields"),
        ("has(result.p95)", "no fields"),
        ("results <= 3", "`results` is not known"),
        ("now() < 3", "the function `now`"),
        ("isNaN()", "takes 1"),
        ("1 < 2", "does not use"),
        ("Foo{a: result} == 1", "no meaning"),
        ("{'a': result} == 1", "no meaning"),
        ("result.all(x, result.all(y, x < y))", "nested"),
        ("[1].map(x, result).size() > 1", "lists of lists"),
        ("result.map(x, [x]).size() > 1", "lists of lists"),
        ("result.all(x, x < mean(result))", "loop variable"),
        ("result.filter(x, x > 1).all(x, x in result)", "loop variable"),
        ("result.foo(1)", "is not known"),
        ("result[?0].hasValue()", ""),
    ] {
        let error = Condition::compile(source).expect_err(source).to_string();
        assert!(error.contains(part), "{source}: {error}");
    }
}

#[test]
fn pathological_input_is_an_error_and_never_a_panic() {
    let deep = format!("{}result{} > 1", "(".repeat(400), ")".repeat(400));
    let prefixes = format!("{}result", "!".repeat(900));
    let minus = format!("{}result > 1", "- ".repeat(400));
    let choices = format!("{}true", "result ? result : ".repeat(50));
    let long = format!("result > {}", "1".repeat(4000));
    for source in [deep, prefixes, minus, choices, long, "\u{0}".into(), "result > '".into(), "\"\\".into(), "result[".into()] {
        assert!(Condition::compile(&source).is_err(), "{source}");
    }
    let chain = format!("result > 0{}", " && result > 0".repeat(70));
    let sums = format!("result{} > 0", " + result".repeat(100));
    let nested = format!("{}result{} > 1", "(".repeat(MAX_NESTING), ")".repeat(MAX_NESTING));
    // The stack of a worker thread is enough for whoever asks.
    let done = std::thread::Builder::new()
        .stack_size(1 << 20)
        .spawn(move || [chain, sums, nested].map(|source| evaluate(Some(&source), None, &json!(5)).0));
    assert_eq!(done.unwrap().join().unwrap(), [Verdict::Pass; 3]);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_text_is_compiled_or_refused(source in r#"[-a-z0-9 ()\[\]{}.,?:!&|<>=+*/%'"\\@#]{0,60}"#) {
        let _ = evaluate(Some(&source), None, &json!(1));
    }

    #[test]
    fn nan_never_decides_without_being_provided_for(limit in -1e6..1e6_f64, list: bool) {
        let result = if list { "result[0]" } else { "result" };
        for operator in ["<", "<=", ">", ">=", "==", "!="] {
            let condition = format!("{result} {operator} {limit:?}");
            proptest::prop_assert_eq!(evaluate(Some(&condition), None, &json!("NaN")).0, Verdict::Inconclusive);
            proptest::prop_assert_eq!(evaluate(None, Some(&condition), &json!("NaN")).0, Verdict::Inconclusive);
        }
    }
}
