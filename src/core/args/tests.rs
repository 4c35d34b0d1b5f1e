use super::*;

fn args(pairs: &[(&str, &str)]) -> BTreeMap<String, ArgValue> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), ArgValue::plain(*v))).collect()
}

fn one(template: &str, place: Place, value: &str) -> Result<String, String> {
    fill(template, place, &args(&[("x", value)])).map(|f| f.text).map_err(|e| e.to_string())
}

#[test]
fn values_are_escaped_for_their_place() {
    let nasty = "a\"b\\c'd\n&e=f/../g {{args.x}}";
    for (template, place, value, expected) in [
        ("https://h/run?v={{args.x}}", Place::Url, "a b&c=d", "https://h/run?v=a%20b%26c%3Dd"),
        ("https://h/{{ args.x }}/y#z", Place::Url, "../é", "https://h/..%2F%C3%A9/y#z"),
        ("https://h:1/{{args.x}}", Place::Url, nasty, "https://h:1/a%22b%5Cc%27d%0A%26e%3Df%2F..%2Fg%20%7B%7Bargs.x%7D%7D"),
        (r#"{"v":"{{args.x}}"}"#, Place::Json, "q\"\\\n", r#"{"v":"q\"\\\n"}"#),
        (r#"{"v":{{args.x}}}"#, Place::Json, "25", r#"{"v":25}"#),
        (r#"a{b="{{args.x}}"}"#, Place::PromQl, "q\"\\\n'", r#"a{b="q\"\\\n'"}"#),
        (r"a{b='{{args.x}}'}", Place::PromQl, "q\"'", r#"a{b='q"\''}"#),
        ("a{b=`{{args.x}}`}", Place::PromQl, r#"q"\"#, r#"a{b=`q"\`}"#),
        ("rate(a[{{args.x}}]) # \"", Place::PromQl, "5m", "rate(a[5m]) # \""),
        ("# it's\na{b=\"{{args.x}}\"}", Place::PromQl, "\"", "# it's\na{b=\"\\\"\"}"),
        ("result == '{{args.x}}'", Place::Cel, "it's", r"result == 'it\'s'"),
        ("result >= {{args.x}}", Place::Cel, "0.92", "result >= 0.92"),
        ("Bearer {{args.x}}", Place::Header, "a b", "Bearer a b"),
        ("see {{ this }} and {{args.x}}", Place::Text, nasty, "see {{ this }} and a\"b\\c'd\n&e=f/../g {{args.x}}"),
    ] {
        assert_eq!(one(template, place, value).unwrap(), expected, "{template}");
    }
}

#[test]
fn values_that_do_not_fit_are_refused_without_being_shown() {
    for (template, place, value, part) in [
        ("https://{{args.x}}/a", Place::Url, "h", "scheme, host or port"),
        ("{{args.x}}://h/a", Place::Url, "https", "scheme, host or port"),
        ("{{args.x}}", Place::Url, "https://h/", "scheme, host or port"),
        ("https://h:{{args.x}}/", Place::Url, "1", "scheme, host or port"),
        ("https://h{{args.x}}", Place::Url, "/", "scheme, host or port"),
        ("https:///{{args.x}}", Place::Url, "evil", "scheme, host or port"),
        ("https://\t/{{args.x}}", Place::Url, "evil", "scheme, host or port"),
        ("https://h\\{{args.x}}/", Place::Url, "evil", "scheme, host or port"),
        ("https://u@h/{{args.x}}", Place::Url, "a", "scheme, host or port"),
        ("https://h/{{args.x}}/b", Place::Url, "..", "path segment"),
        ("https://h/.{{args.x}}/b", Place::Url, ".", "path segment"),
        ("https://h/%2e{{args.x}}/b", Place::Url, ".", "path segment"),
        (r#"{"v":{{args.x}}}"#, Place::Json, "secret1,\"b\":2", "outside quotes"),
        ("a{b=`{{args.x}}`}", Place::PromQl, "secret1`", "backtick"),
        ("a > {{args.x}}", Place::PromQl, "1 or secret1", "outside quotes"),
        ("a > {{args.x}}", Place::PromQl, "", "outside quotes"),
        ("a # {{args.x}}", Place::PromQl, "b", "comment"),
        (r#"a{b="\{{args.x}}"}"#, Place::PromQl, "n", "backslash"),
        ("result > {{args.x}}", Place::Cel, "0 || true", "outside quotes"),
        ("{{args.x}}", Place::Header, "a\r\nsecret1: b", "line breaks"),
        ("{{args.y}}", Place::Text, "", "argument `y` is not known here; known are x"),
        ("{{args.x", Place::Text, "", "write {{args.NAME}}"),
        ("{{x}}", Place::PromQl, "", "write {{args.NAME}}"),
        ("{{args.a b}}", Place::Header, "", "write {{args.NAME}}"),
    ] {
        let error = one(template, place, value).expect_err(template);
        assert!(error.contains(part), "{template}: {error}");
        assert!(!error.contains("secret1"), "{template}: {error}");
    }
}

#[test]
fn what_holds_a_secret_says_so_and_does_not_show_it() {
    let mut args = args(&[("x", "a")]);
    args.insert("token".into(), ArgValue { text: "s3cr3t".into(), secret: true });
    assert!(!fill("{{args.x}}", Place::Text, &args).unwrap().secret);
    let filled = fill("{{args.x}} {{args.token}}", Place::Header, &args).unwrap();
    assert!(filled.secret);
    assert_eq!(format!("{filled:?} {args:?}"), r#"*** {"token": ***, "x": a}"#);
}

#[test]
fn names_and_placement_are_checked_without_values() {
    let known: BTreeSet<String> = ["x".to_owned()].into();
    assert_eq!(check("https://h/{{args.x}}", Place::Url, &known), Ok(()));
    assert!(matches!(check("https://{{args.x}}/", Place::Url, &known), Err(ArgError::Placement { .. })));
    assert!(matches!(check("{{args.y}}", Place::Header, &known), Err(ArgError::Unknown { .. })));
    assert_eq!(names("{{args.b}} {{ args.a }} {{args.b}}", Place::Text).unwrap().into_iter().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(probe(r#"a{b="{{args.x}}"}[{{args.w}}]"#, Place::PromQl, "q", "1m").unwrap(), r#"a{b="q"}[1m]"#);
}

proptest::proptest! {
    #[test]
    fn a_value_stays_inside_its_place(value in r#"[ -~\n\r\t"'\\/{}é]{0,40}"#) {
        let json = one(r#"{"v":"{{args.x}}","w":1}"#, Place::Json, &value).unwrap();
        let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
        proptest::prop_assert_eq!(&parsed["v"], &serde_json::Value::from(value.clone()));

        if let Ok(filled) = one("https://host:1/a/{{args.x}}/b?c={{args.x}}&d=1", Place::Url, &value) {
            let url = url::Url::parse(&filled).unwrap();
            proptest::prop_assert_eq!(url.host_str(), Some("host"));
            proptest::prop_assert_eq!(url.path_segments().unwrap().count(), 3);
            let pairs: Vec<_> = url.query_pairs().into_owned().collect();
            proptest::prop_assert_eq!(pairs, vec![("c".to_owned(), value.clone()), ("d".to_owned(), "1".to_owned())]);
        }
        for template in [r#"a{b="{{args.x}}",c="d"}"#, r"a{b='{{args.x}}',c='d'}"] {
            let query = one(template, Place::PromQl, &value).unwrap();
            let Ok(promql_parser::parser::Expr::VectorSelector(selector)) = promql_parser::parser::parse(&query) else {
                return Err(proptest::test_runner::TestCaseError::fail(query));
            };
            let found = selector.matchers.find_matchers("b");
            proptest::prop_assert_eq!(&found[0].value, &value);
        }
        let condition = one("result == '{{args.x}}'", Place::Cel, &value).unwrap();
        let (verdict, _) = crate::core::condition::evaluate(Some(&condition), None, &serde_json::Value::from(value.clone()));
        proptest::prop_assert!(condition.len() > 1000 || verdict == crate::api::run::Verdict::Pass, "{}", condition);
    }
}
