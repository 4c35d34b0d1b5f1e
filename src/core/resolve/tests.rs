use serde_json::json;

use super::*;

fn gate(value: Value) -> Gate {
    serde_json::from_value(value).unwrap()
}

fn prometheus(name: &str, query: &str) -> Value {
    json!({ "name": name, "threshold": { "interval": "30s", "successCondition": "result <= 800",
        "provider": { "prometheus": { "address": "http://prometheus:9090", "query": query } } } })
}

fn problems(value: Value) -> Vec<String> {
    let known = known_args(&[Arg { name: "suite".into(), ..Arg::default() }]);
    validate_gate(&gate(value), "g", &known).iter().map(ToString::to_string).collect()
}

fn changed(mut base: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    base.pointer_mut(parent).unwrap()[key] = value;
    base
}

#[test]
fn good_gates_have_no_problems() {
    let web = json!({ "name": "evals", "threshold": { "count": 3, "interval": "1m", "failureLimit": 1, "counting": "argo",
        "successCondition": "result >= {{args.weight}}", "failureCondition": "result < 0.5",
        "provider": { "web": { "method": "POST", "url": "https://evals.internal/api/run?suite={{args.suite}}&version={{args.canary-hash}}",
            "body": "{\"version\": \"{{args.canary-hash}}\", \"weight\": {{ args.weight }}}", "jsonPath": "{$.passRate}", "timeout": "30m",
            "headers": [{ "name": "X-Team", "value": "{{args.suite}}" }] } } } });
    let judge = json!({ "name": "judge", "judge": { "anthropic": { "model": "m" }, "prompt": "Compare {{args.stable-hash}}; answer {{ freely }}",
        "evidence": { "metrics": [{ "name": "p95", "countQuery": "count(a{v=\"{{args.revision}}\"})",
            "prometheus": { "address": "http://p", "query": "rate(a{v=\"{{args.revision}}\"}[5m])" } }] } } });
    for good in [
        web,
        judge,
        prometheus("p95", "rate(a{v=\"{{args.canary-hash}}\"}[5m])"),
        prometheus("p95", "rate(a[{{args.suite}}])"),
        prometheus("p95", "a > {{args.weight}}"),
    ] {
        assert_eq!(problems(good.clone()), Vec::<String>::new(), "{good}");
    }
}

#[test]
fn every_problem_has_its_path_and_a_clear_message() {
    let base = || prometheus("p95", "a");
    let web = || json!({ "name": "w", "threshold": { "successCondition": "result > 0", "provider": { "web": { "url": "https://h/x" } } } });
    let judge = || json!({ "name": "j", "judge": { "anthropic": { "model": "m" }, "prompt": "p" } });
    for (bad, path, part) in [
        (changed(base(), "/threshold/successCondition", json!("result <=")), "g.threshold.successCondition", "not a valid condition"),
        (changed(base(), "/threshold/failureCondition", json!("foo > 1")), "g.threshold.failureCondition", "`foo` is not known"),
        (
            changed(base(), "/threshold/successCondition", json!("result > {{args.no}}")),
            "g.threshold.successCondition",
            "argument `no` is not known",
        ),
        (changed(base(), "/threshold/interval", json!("0s")), "g.threshold.interval", "1s or longer"),
        (changed(base(), "/threshold/interval", json!("-1m")), "g.threshold.interval", "negative"),
        (changed(base(), "/threshold/initialDelay", json!("-1m")), "g.threshold.initialDelay", "negative"),
        (changed(base(), "/maxDuration", json!("0s")), "g.maxDuration", "1s or longer"),
        (changed(base(), "/errorBudget", json!("-1s")), "g.errorBudget", "negative"),
        (
            changed(changed(base(), "/threshold/count", json!(1)), "/threshold/failureLimit", json!(2)),
            "g.threshold.count",
            "less than failureLimit",
        ),
        (
            changed(changed(base(), "/threshold/count", json!(2)), "/threshold/consecutiveSuccessLimit", json!(3)),
            "g.threshold.count",
            "consecutiveSuccessLimit",
        ),
        (
            changed(changed(web(), "/threshold/count", json!(2)), "/threshold/failureLimit", json!(1)),
            "g.threshold.interval",
            "needs an interval",
        ),
        (prometheus("p95", "rate(a[5m)"), "g.threshold.provider.prometheus.query", "not a valid PromQL query"),
        (prometheus("p95", "a{v=\"{{args.no}}\"}"), "g.threshold.provider.prometheus.query", "argument `no` is not known"),
        (prometheus("p95", "a{v=\"{{ canary }}\"}"), "g.threshold.provider.prometheus.query", "write {{args.NAME}}"),
        (
            changed(base(), "/threshold/provider/prometheus/address", json!("prometheus:9090")),
            "g.threshold.provider.prometheus.address",
            "http",
        ),
        (
            changed(base(), "/threshold/provider/prometheus/timeout", json!("0s")),
            "g.threshold.provider.prometheus.timeout",
            "1ms or longer",
        ),
        (changed(base(), "/threshold/provider", json!({})), "g.threshold.provider", "exactly one of prometheus, web"),
        (
            changed(web(), "/threshold/provider/web/url", json!("https://{{args.suite}}/x")),
            "g.threshold.provider.web.url",
            "scheme, host or port",
        ),
        (changed(web(), "/threshold/provider/web/url", json!("ftp://h/x")), "g.threshold.provider.web.url", "http"),
        (changed(web(), "/threshold/provider/web/url", json!("https://u:p@h/x")), "g.threshold.provider.web.url", "credentials"),
        (changed(web(), "/threshold/provider/web/url", json!("https://h/a b")), "g.threshold.provider.web.url", "spaces"),
        (changed(web(), "/threshold/provider/web/jsonPath", json!("{$.a[}")), "g.threshold.provider.web.jsonPath", "not a JSONPath"),
        (changed(web(), "/threshold/provider/web/jsonPath", json!("")), "g.threshold.provider.web.jsonPath", "not a JSONPath"),
        (
            changed(web(), "/threshold/provider/web/headers", json!([{ "name": "a b", "value": "c" }])),
            "g.threshold.provider.web.headers[0].name",
            "not a header name",
        ),
        (
            changed(web(), "/threshold/provider/web/headers", json!([{ "name": "Host", "value": "c" }])),
            "g.threshold.provider.web.headers[0].name",
            "cannot be set",
        ),
        (
            changed(web(), "/threshold/provider/web/headers", json!([{ "name": "A", "value": "b\r\nC: d" }])),
            "g.threshold.provider.web.headers[0].value",
            "line breaks",
        ),
        (changed(web(), "/threshold/provider/web/headers", json!([{ "name": "A" }])), "g.threshold.provider.web.headers[0]", "exactly one"),
        (changed(web(), "/threshold/provider/web/auth", json!({})), "g.threshold.provider.web.auth", "exactly one"),
        (changed(judge(), "/judge/count", json!(3)), "g.judge.interval", "needs an interval"),
        (changed(judge(), "/judge/failureLimit", json!(3)), "g.judge.failureLimit", "more than count"),
        (changed(judge(), "/judge/openai", json!({ "model": "m" })), "g.judge", "exactly one of anthropic, openai"),
        (changed(judge(), "/judge/anthropic/baseUrl", json!("https://h/{{args.suite}}")), "g.judge.anthropic.baseUrl", "no arguments"),
        (changed(judge(), "/judge/prompt", json!("{{args.no}}")), "g.judge.prompt", "argument `no`"),
        (
            changed(
                judge(),
                "/judge/evidence",
                json!({ "metrics": [{ "name": "p95", "prometheus": { "address": "http://p", "query": "a" } }] }),
            ),
            "g.judge.evidence.metrics[0].prometheus.query",
            "{{args.revision}}",
        ),
        (json!({ "name": "none" }), "g", "exactly one of threshold, judge, compare, compareHistogram, absolute, paired"),
    ] {
        let found = problems(bad.clone());
        assert_eq!(found.len(), 1, "{bad}: {found:?}");
        assert!(found[0].starts_with(&format!("{path}: ")) && found[0].contains(part), "{bad}: {found:?}");
    }
}

fn analysis(value: Value) -> Analysis {
    serde_json::from_value(value).unwrap()
}

fn facts() -> Facts {
    Facts { stable_revision: "s1".into(), canary_revision: "c2".into(), weight: 25, step: 3, attempt: 2 }
}

fn library(reference: &TemplateRef) -> Option<TemplateContent> {
    let content = |args: Value, gates: Vec<Value>| TemplateContent {
        args: serde_json::from_value(args).unwrap(),
        gates: gates.into_iter().map(gate).collect(),
    };
    let secret = json!([{ "name": "token", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } }]);
    Some(match (reference.name.as_str(), reference.cluster) {
        ("latency", false) => content(
            json!([{ "name": "limit", "value": "800" }, { "name": "team" }]),
            vec![changed(prometheus("p95", "a{team=\"{{args.team}}\"}"), "/threshold/successCondition", json!("result <= {{args.limit}}"))],
        ),
        ("evals", true) => content(
            secret,
            vec![json!({ "name": "evals", "threshold": { "successCondition": "result > 0",
                "provider": { "web": { "url": "https://h/x?v={{args.canary-hash}}", "headers": [{ "name": "A", "value": "{{args.token}}" }] } } } })],
        ),
        ("leaky", false) => {
            content(secret, vec![changed(prometheus("p95", "a"), "/threshold/successCondition", json!("result <= {{args.token}}"))])
        }
        ("broken", false) => content(json!([]), vec![prometheus("bad", "rate(a[)")]),
        _ => return None,
    })
}

fn run(value: Value) -> Result<Vec<RunGate>, Vec<String>> {
    let rollout = json!({ "metadata": { "name": "agent", "labels": { "team": "voice" } }, "spec": { "replicas": 3 } });
    resolve(&analysis(value), &rollout, &facts(), &library, "spec.steps[2].analysis")
        .map_err(|e| e.iter().map(ToString::to_string).collect())
}

fn arg<'a>(gate: &'a RunGate, name: &str) -> &'a RunArg {
    gate.args.iter().find(|a| a.name == name).unwrap()
}

#[test]
fn templates_and_inline_gates_are_merged_with_their_arguments() {
    let gates = run(json!({
        "templates": [{ "name": "latency" }, { "name": "evals", "cluster": true }],
        "gates": [prometheus("inline", "b{step=\"{{args.n}}\",team=\"{{args.team}}\"}")],
        "args": [
            { "name": "team", "valueFrom": { "fieldRef": { "fieldPath": "metadata.labels['team']" } } },
            { "name": "n", "valueFrom": { "release": "step" } },
        ],
    }))
    .unwrap();
    assert_eq!(gates.iter().map(|g| g.gate.name.as_str()).collect::<Vec<_>>(), ["p95", "evals", "inline"]);
    assert_eq!(gates[0].gate.threshold.as_ref().unwrap().success_condition.as_deref(), Some("result <= 800"));
    let values =
        ["team", "limit", "canary-hash", "stable-hash", "weight", "step", "attempt"].map(|n| arg(&gates[0], n).value.clone().unwrap());
    assert_eq!(values, ["voice", "800", "c2", "s1", "25", "3", "2"]);
    assert!(gates[1].from_cluster_template && arg(&gates[1], "token").in_operator_namespace);
    assert_eq!(arg(&gates[1], "token").value, None);
    assert!(!gates[1].args.iter().any(|a| a.name == "team"), "a template sees what it declares");
    assert_eq!((arg(&gates[2], "n").value.as_deref(), gates[2].from_cluster_template), (Some("3"), false));
}

#[test]
fn the_rollouts_arguments_win_and_its_secrets_are_its_own() {
    let gates = run(json!({ "templates": [{ "name": "latency" }, { "name": "evals", "cluster": true }], "args": [
        { "name": "team", "value": "a" }, { "name": "limit", "value": "500" },
        { "name": "token", "valueFrom": { "secretKeyRef": { "name": "mine", "key": "k" } } },
    ] }))
    .unwrap();
    assert_eq!(gates[0].gate.threshold.as_ref().unwrap().success_condition.as_deref(), Some("result <= 500"));
    let token = arg(&gates[1], "token");
    assert_eq!((token.secret_key_ref.as_ref().unwrap().name.as_str(), token.in_operator_namespace), ("mine", false));
}

#[test]
fn only_require_resolves_to_no_gates() {
    assert_eq!(run(json!({ "require": ["p95"] })), Ok(Vec::new()));
}

#[test]
fn all_errors_come_at_once() {
    let errors = run(json!({
        "templates": [{ "name": "latency" }, { "name": "nothing" }, { "name": "broken" }],
        "gates": [prometheus("p95", "a"), changed(prometheus("q", "a"), "/threshold/successCondition", json!("rsult"))],
        "args": [
            { "name": "weight", "value": "3" },
            { "name": "empty" },
            { "name": "field", "valueFrom": { "fieldRef": { "fieldPath": "spec.none" } } },
        ],
    }))
    .unwrap_err();
    let at = "spec.steps[2].analysis";
    for expected in [
        format!("{at}.args[0].name: the argument `weight` is built in"),
        format!("{at}.args[1]: the argument `empty` has no value"),
        format!("{at}.args[2].valueFrom: the VoiceRollout has no field `spec.none`"),
        format!("{at}.templates[0]: the argument `team` of VoiceAnalysisTemplate `latency` was never given"),
        format!("{at}.templates[1]: there is no VoiceAnalysisTemplate `nothing`"),
        format!(
            "{at}.templates[2]: VoiceAnalysisTemplate `broken`: spec.gates[0].threshold.provider.prometheus.query: not a valid PromQL query"
        ),
        format!("{at}.gates[0].name: another gate of this analysis is called `p95`"),
        format!("{at}.gates[1].threshold.successCondition: `rsult` is not a valid condition: `rsult` is not known"),
    ] {
        assert!(errors.iter().any(|e| e.starts_with(&expected)), "{expected} is missing in {errors:#?}");
    }
    assert_eq!(errors.len(), 8, "{errors:#?}");
}

#[test]
fn an_analysis_decides_something_and_uses_what_it_is_given() {
    let one = |value: Value| run(value).unwrap_err().join("\n");
    assert_eq!(one(json!({})), "spec.steps[2].analysis: an analysis needs templates, gates or require");
    let dry = changed(prometheus("p95", "a"), "/mode", json!("dryRun"));
    assert!(one(json!({ "gates": [dry], "require": ["x"] })).contains("no gate has mode enforce"));
    let judge = |name| json!({ "name": name, "judge": { "anthropic": { "model": "m" }, "prompt": "p", "explainAborts": true } });
    assert_eq!(
        one(json!({ "gates": [judge("a"), judge("b")] })),
        "spec.steps[2].analysis: one judge explains an abort, and explainAborts is set for a, b: leave it at one of them"
    );
    assert!(
        one(json!({ "gates": [prometheus("p", "a")], "args": [{ "name": "x", "value": "y" }] }))
            .starts_with("spec.steps[2].analysis.args[0].name: nothing uses")
    );
    assert!(one(json!({ "templates": [{ "name": "leaky" }] })).contains("comes from a Secret and cannot be part of a condition"));
    let twice = json!({ "gates": [prometheus("p", "a{b=\"{{args.x}}\"}")], "args": [{ "name": "x", "value": "y" }, { "name": "x", "value": "z" }] });
    assert!(one(twice).contains("occurs twice"));
}

#[test]
fn json_paths_may_stand_in_braces() {
    assert_eq!(json_path("{$.passRate}").as_deref(), Ok("$.passRate"));
    assert_eq!(json_path(" $.a[0] ").as_deref(), Ok("$.a[0]"));
    assert_eq!(json_path("{$}").as_deref(), Ok("$"));
    assert!(json_path("{.passRate").is_err());
}

#[test]
fn mistakes_of_gates_that_count_calls_have_their_paths() {
    let server = json!({ "address": "http://prometheus:9090" });
    let compare = || json!({ "name": "c", "compare": { "prometheus": server, "bad": "b{v=\"{{args.suite}}\"}", "total": "t" } });
    assert_eq!(problems(compare()), Vec::<String>::new());
    for (bad, path, part) in [
        (changed(compare(), "/compare/prometheus/address", json!("ftp://x")), "g.compare.prometheus.address", "has to begin with http"),
        (changed(compare(), "/compare/bad", json!("b{v=\"{{args.no}}\"}")), "g.compare.bad", "argument `no` is not known"),
        (changed(compare(), "/compare/total", json!("rate(t[5m])")), "g.compare.total", "plain selector"),
        (changed(compare(), "/compare/warmup", json!("-1s")), "g.compare.warmup", "negative"),
        (changed(compare(), "/falseAbort", json!(0.7)), "g.falseAbort", "not a chance"),
        (changed(prometheus("p", "up"), "/falseAbort", json!(0.01)), "g.falseAbort", "only gates that test"),
        (
            changed(compare(), "/judge", json!({ "anthropic": { "model": "m" }, "prompt": "p" })),
            "g",
            "exactly one of threshold, judge, compare",
        ),
    ] {
        let found = problems(bad);
        assert!(found.iter().any(|p| p.starts_with(&format!("{path}: ")) && p.contains(part)), "{path} {part}: {found:?}");
    }
}
fn long(run: Value) -> Value {
    json!({ "name": "w", "threshold": { "successCondition": "result > 0", "provider": { "web": { "url": "https://h/x/{{args.suite}}", "run": run } } } })
}

#[test]
fn eval_runs_and_pairs_that_are_well_written() {
    let run = json!({ "poll": { "url": "/api/runs/{{run.id}}?a={{ args.suite }}", "id": "{$.id}", "interval": "15m", "retryAfter": "{$.s}" },
        "done": "result.status == 'completed'", "failed": "has(result.error) && result.error != null", "deadline": "1h",
        "cancel": { "method": "DELETE", "url": "https://h/api/{{run.id}}" } });
    let linked = json!({ "poll": { "url": "{$.links.self}" }, "done": "result.done", "cancel": { "url": "{$.links.cancel}" } });
    let mut computed = long(json!({ "done": "result.ok" }));
    let web = &mut computed["threshold"]["provider"]["web"];
    web["body"] = json!("{\"name\": \"{{run.key}}\"}");
    web["headers"] = json!([{ "name": "X-Run", "value": "{{run.key}}" }]);
    web["values"] = json!({ "pass": "{$.a}", "fail": "{$.b[*]}" });
    web["result"] = json!("double(pass) / (pass + size(fail))");
    web["suite"] = json!({ "version": "{$.v}" });
    let paired = json!({ "name": "p", "paired": { "web": { "url": "https://h/x" }, "interval": "10m", "count": 2, "margin": 0.1,
        "scenarios": { "path": "{$.r[*]}", "stable": "{$.s}", "canary": "{$.c}" } } });
    for good in [long(run), long(linked), computed, paired] {
        assert_eq!(problems(good.clone()), Vec::<String>::new(), "{good}");
    }
}

#[test]
fn problems_of_eval_runs_and_pairs() {
    let run = |pointer: &str, value: Value| {
        let base = json!({ "poll": { "url": "/r/{{run.id}}", "id": "{$.id}" }, "done": "result.ok", "cancel": { "url": "/r/{{run.id}}" } });
        long(changed(base, pointer, value))
    };
    let web = |field: &str, value: Value| changed(long(json!({ "done": "result.ok" })), &format!("/threshold/provider/web/{field}"), value);
    let values = |names: Value, result: &str| changed(web("values", names), "/threshold/provider/web/result", json!(result));
    let pair = |pointer: &str, value: Value| {
        let base = json!({ "web": { "url": "https://h/x" }, "stableOnly": "{$.b}", "canaryOnly": "{$.c}", "total": "{$.n}" });
        json!({ "name": "p", "paired": changed(base, pointer, value) })
    };
    let at = |field: &str| format!("g.threshold.provider.web.{field}");
    for (bad, path, part) in [
        (run("/done", json!("result.status ==")), at("run.done"), "not a valid condition"),
        (run("/done", json!("status == 'done'")), at("run.done"), "`status` is not known"),
        (run("/done", json!("true")), at("run.done"), "does not use `result`"),
        (run("/failed", json!("result.a.all(x, result.b.all(y, x == y))")), at("run.failed"), "cannot be nested"),
        (run("/deadline", json!("61m")), at("run.deadline"), "1h or shorter"),
        (run("/deadline", json!("2s")), at("run.deadline"), "not be shorter than the timeout"),
        (run("/deadline", json!("-1s")), at("run.deadline"), "negative"),
        (run("/poll/interval", json!("16m")), at("run.poll.interval"), "15m or shorter"),
        (run("/poll/interval", json!("100ms")), at("run.poll.interval"), "1s or longer"),
        (run("/poll/id", json!("id")), at("run.poll.id"), "not a JSONPath"),
        (run("/poll/url", json!("{$.links[}")), at("run.poll.url"), "not a JSONPath"),
        (run("/poll/url", json!("https://other/r")), at("run.poll.url"), "those of the start's url"),
        (run("/poll/url", json!("http://h/r")), at("run.poll.url"), "those of the start's url"),
        (run("/poll/url", json!("//other/r")), at("run.poll.url"), "not a URL"),
        (run("/poll/url", json!("https://{{args.suite}}/r")), at("run.poll.url"), "scheme, host or port"),
        (run("/poll/url", json!("/r/{{args.no}}")), at("run.poll.url"), "argument `no` is not known"),
        (run("/cancel/url", json!("https://h.other/r")), at("run.cancel.url"), "those of the start's url"),
        (long(json!({ "poll": { "url": "/r/{{run.id}}" }, "done": "result.ok" })), at("run.poll.url"), "needs poll.id"),
        (web("url", json!("https://h/{{run.id}}")), at("url"), "argument `run.id` is not known"),
        (web("result", json!("a / b")), "g.threshold.provider.web".into(), "belong together"),
        (values(json!({ "a": "{$.a}" }), "a / b"), at("result"), "`b` is not known; known are a"),
        (values(json!({ "a": "{$.a}" }), "a /"), at("result"), "not a valid condition"),
        (values(json!({ "a": "{$.a[}" }), "a / 2"), at("values.a"), "not a JSONPath"),
        (web("suite", json!({ "seed": "seed" })), at("suite.seed"), "not a JSONPath"),
        (pair("/margin", json!(0.0)), "g.paired.margin".into(), "above 0"),
        (pair("/margin", json!(0.6)), "g.paired.margin".into(), "up to 0.5"),
        (pair("/falsePromote", json!(0.5)), "g.paired.falsePromote".into(), "below 0.5"),
        (pair("/minPairs", json!(0)), "g.paired.minPairs".into(), "1 or more"),
        (pair("/count", json!(2)), "g.paired.interval".into(), "needs an interval"),
        (changed(pair("/margin", json!(0.1)), "/falseAbort", json!(0.0)), "g.falseAbort".into(), "above 0"),
        (pair("/total", json!("n")), "g.paired.total".into(), "not a JSONPath"),
        (pair("/total", json!(null)), "g.paired".into(), "either scenarios"),
        (pair("/web", json!({ "url": "https://h/x", "jsonPath": "{$.a}" })), "g.paired.web".into(), "leave out jsonPath"),
        (pair("/web", json!({ "url": "ftp://h/x" })), "g.paired.web.url".into(), "http"),
    ] {
        let found = problems(bad.clone());
        assert_eq!(found.len(), 1, "{bad}: {found:?}");
        assert!(found[0].starts_with(&format!("{path}: ")) && found[0].contains(part), "{path} {part}: {found:?}");
    }
    let names = values(json!({ "a-b": "{$.a}", "c": "{$.c}" }), "c + 1");
    assert!(problems(names).iter().any(|p| p.contains("values.a-b: a name has letters")));
    let both = changed(values(json!({ "a": "{$.a}" }), "a / 2"), "/threshold/provider/web/jsonPath", json!("{$.b}"));
    assert!(problems(both).iter().any(|p| p.contains("web.jsonPath: set either jsonPath, or values and result")));
}
