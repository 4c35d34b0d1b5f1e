use axum::extract::Json;
use axum::routing::post;

use super::*;

/// A model that says FAIL about evidence with `bad` in it, UNSURE about `thin`, nothing about `odd`, and PASS otherwise.
async fn model() -> String {
    let answer = async |Json(question): Json<Value>| {
        let text = question["messages"][1]["content"].as_str().unwrap_or_default().to_owned();
        let at = text.find("Judge arm ").map_or(0, |at| at + "Judge arm ".len());
        let has = |word: &str| text.contains(word);
        let verdict = if has("bad") {
            "FAIL"
        } else if has("thin") {
            "UNSURE"
        } else if has("odd") {
            "MAYBE"
        } else {
            "PASS"
        };
        let content = json!({"arm": text[at..=at], "verdict": verdict, "reason": "Because."}).to_string();
        Json(json!({"model": "m-1", "choices": [{"message": {"content": content}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10}}))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().route("/v1/chat/completions", post(answer))).await });
    base
}

struct Files(tempfile::TempDir);

impl Files {
    fn new(gate: &Value, cases: &[Value]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("gate.yaml"), serde_yaml::to_string(gate).unwrap()).unwrap();
        std::fs::write(dir.path().join("cases"), cases.iter().map(|c| format!("{c}\n")).collect::<String>()).unwrap();
        Self(dir)
    }

    async fn eval(&self, json: bool) -> (String, Result<(), CliError>) {
        let path = |name: &str| self.0.path().join(name);
        let args = EvalArgs { gate: path("gate.yaml"), cases: path("cases"), args: vec![("team".into(), "x".into())], json };
        let mut out = Vec::new();
        let result = eval(&args, &mut out).await;
        (String::from_utf8(out).unwrap(), result)
    }
}

fn gate(base: &str, requires: Value) -> Value {
    json!({"name": "j", "judge": {"openai": {"model": "m", "baseUrl": base}, "prompt": "Judge for {{args.team}}.", "requires": requires}})
}

fn case(note: &str, expected: &str) -> Value {
    json!({"name": format!("{note} {expected}"), "evidence": {"note": note}, "expected": expected})
}

#[tokio::test]
async fn figures_of_a_judge() {
    let base = model().await;
    let mut cases = vec![case("bad", "FAIL"), case("bad", "FAIL"), case("thin", "UNSURE"), case("fine", "FAIL"), case("odd", "PASS")];
    cases.extend((0..5).map(|_| case("fine", "PASS")));
    let files = Files::new(&gate(&base, json!({"minAgreement": 0.8, "maxFalsePass": 0.25, "minCases": 10})), &cases);
    let (text, result) = files.eval(true).await;
    let said: Value = serde_json::from_str(&text).unwrap();
    // Agreed 8 of 10. Wanted 6 PASS, 3 FAIL, 1 UNSURE; given 6, 2, 1 and an error: chance 0.36 + 0.06 + 0.01.
    assert!((said["agreement"].as_f64().unwrap() - 0.8).abs() < 1e-9, "{text}");
    assert!((said["kappa"].as_f64().unwrap() - (0.8 - 0.43) / 0.57).abs() < 1e-9, "{text}");
    assert_eq!(said["falsePass"]["count"], 1);
    assert_eq!((said["falsePass"]["of"].as_i64(), said["falsePass"]["rate"].as_f64()), (Some(4), Some(0.25)));
    assert_eq!((said["errors"].as_i64(), said["tokens"]["input"].as_i64()), (Some(1), Some(1000)));
    result.unwrap();
    let (text, _) = files.eval(false).await;
    for words in [
        "agreement    0.800 (8 of 10 cases)",
        "kappa        0.649",
        "false pass   0.250 (1 of 4;",
        "record: {hash:",
        "fine FAIL",
        "PASS  !",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }

    // The record that was printed is the one that the gate accepts, and a higher floor is not reached.
    let record = said["record"].clone();
    let accepted = gate(&base, json!({"minAgreement": 0.8, "minCases": 10, "record": record}));
    let parsed: Gate = serde_json::from_value(accepted).unwrap();
    assert_eq!(validate_gate(&parsed, "g", &BTreeSet::from(["team".to_owned()])), []);
    let strict = Files::new(&gate(&base, json!({"minAgreement": 0.95, "minCases": 10})), &cases);
    let error = strict.eval(true).await.1.unwrap_err();
    assert!(error.to_string().contains("agreement 0.8 is below minAgreement 0.95"), "{error}");
    assert_eq!(error.exit(), crate::cli::exit::Exit::Failed);
}

#[tokio::test]
async fn wrong_files_are_named() {
    let good = gate("http://127.0.0.1:9", json!(null));
    let cases: [(Value, Vec<Value>, &str); 7] = [
        (json!({"name": "x"}), vec![case("a", "PASS")], "gate: a gate is exactly one of"),
        (json!([1]), vec![case("a", "PASS")], "not one entry of gates"),
        (good.clone(), vec![], "there are no cases"),
        (good.clone(), vec![case("a", "PASS"), json!({"evidence": {}})], "line 2: missing field `expected`"),
        (good.clone(), vec![case("a", "MAYBE")], "line 1: unknown variant"),
        (good.clone(), vec![case("a", "INVALID")], "line 1: expected is PASS, FAIL or UNSURE"),
        (good, vec![json!({"evidence": {}, "expected": "PASS", "label": 1})], "line 1: unknown field `label`"),
    ];
    for (gate, cases, words) in cases {
        let error = Files::new(&gate, &cases).eval(false).await.1.unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}
