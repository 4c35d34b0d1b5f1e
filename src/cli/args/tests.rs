use super::*;

#[test]
fn the_grammar_holds_together() {
    command(false).debug_assert();
    command(true).debug_assert();
}

#[test]
fn it_goes_by_the_name_it_was_called_by() {
    for (name, program) in [
        ("kubectl-voicerollout", "kubectl voicerollout"),
        ("/usr/local/bin/kubectl-voicerollout", "kubectl voicerollout"),
        ("kubectl-voicerollout.exe", "kubectl voicerollout"),
        ("./target/debug/voicerollout", "voicerollout"),
        ("renamed", "voicerollout"),
    ] {
        assert_eq!(parse([name, "status", "agent"]).unwrap().program, program, "{name}");
    }
    let help = |name| parse([name, "--help"]).unwrap_err().to_string();
    assert!(help("kubectl-voicerollout").contains("Usage: kubectl voicerollout <COMMAND>"));
    assert!(!help("kubectl-voicerollout").contains("Run the operator") && help("voicerollout").contains("Run the operator"));
    let usage = parse(["kubectl-voicerollout", "abort"]).unwrap_err();
    assert!(usage.to_string().contains("kubectl voicerollout abort <NAME>"), "{usage}");
    assert_eq!(usage.exit_code(), 2);
}

#[test]
fn orders_carry_reason_timeout_and_place() {
    let words = "voicerollout promote agent --full --reason why -n voice --context prod --kubeconfig k --timeout 1m30s";
    let Verb::Promote(promote) = parse(words.split(' ')).unwrap().verb else { panic!("promote") };
    assert!(promote.full);
    let OrderArgs { name, reason, timeout, connection } = promote.order;
    assert_eq!((name.as_str(), reason.as_deref(), timeout), ("agent", Some("why"), Duration::from_secs(90)));
    assert_eq!((connection.namespace.as_deref(), connection.context.as_deref()), (Some("voice"), Some("prod")));
    assert_eq!(connection.kubeconfig, Some("k".into()));
    for bad in ["5", "0s", "-1m", "soon"] {
        let error = parse(["voicerollout", "abort", "agent", &format!("--timeout={bad}")]).unwrap_err();
        assert_eq!(error.kind(), clap::error::ErrorKind::ValueValidation, "{bad}");
    }
}

#[test]
fn lists_are_separated_by_commas() {
    let words = "voicerollout run --watch-namespaces a,b --egress-allow 10.0.0.0/8,evals.internal --identity me";
    let Verb::Run(run) = parse(words.split(' ')).unwrap().verb else { panic!("run") };
    assert_eq!(run.watch_namespaces, ["a", "b"]);
    assert_eq!(run.egress_allow, ["10.0.0.0/8", "evals.internal"]);
    assert_eq!(run.identity.as_deref(), Some("me"));
}
