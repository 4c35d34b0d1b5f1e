use serde_json::json;

use super::*;
use crate::cli::samples::{now, rollout};

fn shown(rollout: &VoiceRollout) -> String {
    render(rollout, &[], now(), Paint::default())
}

#[test]
fn a_release_on_its_way() {
    let view = shown(&rollout(json!({
        "observedGeneration": 4, "phase": "Progressing", "attempt": 1, "currentStep": 2, "stepDisplay": "3/10",
        "message": "analysis voice-canary runs", "waitingFor": "gate p95-first-token: data since the weight change, 2m20s of 5m15s",
        "stableRevision": "5b7c9d", "canaryRevision": "6d5f8c", "weights": {"desired": 5, "applied": 5},
        "step": {"startedAt": "2026-03-01T12:07:40Z"},
        "nextAction": {"what": "first measurement of p95-first-token", "at": "2026-03-01T12:12:55Z"},
        "gates": [
            {"name": "eval-pass-rate", "kind": "Step", "verdict": "Pass", "value": "0.95", "message": "0.95 >= 0.92"},
            {"name": "p95-first-token", "kind": "Step", "message": "waits for its window"},
            {"name": "tool-calls", "kind": "Background", "mode": "dryRun", "verdict": "Inconclusive", "message": "12 calls"},
        ],
        "revisions": [
            {"hash": "6d5f8c", "number": 7, "role": "Canary", "replicas": 1, "ready": 1},
            {"hash": "5b7c9d", "number": 6, "role": "Stable", "replicas": 10, "ready": 10},
            {"hash": "aa01", "number": 5, "role": "Draining", "replicas": 2, "ready": 2, "liveCalls": 17, "unreadPods": 1, "callsCut": 2, "retiredAt": "2026-03-01T11:40:00Z"},
        ],
        "decisions": [
            {"at": "2026-03-01T12:02:00Z", "revision": "6d5f8c", "decision": "NewRevision", "reason": "revision 7 is released"},
            {"at": "2026-03-01T12:07:40Z", "revision": "6d5f8c", "step": "2/10", "decision": "StepCompleted", "reason": "5m have passed"},
        ],
    })));
    insta::assert_snapshot!(view);
}

#[test]
fn a_release_that_a_gate_stopped() {
    let view = shown(&rollout(json!({
        "observedGeneration": 4, "phase": "Degraded", "attempt": 2, "currentStep": 5, "stepDisplay": "6/10",
        "message": "aborted: p95-first-token: 912 breaks result[0] <= 800", "waitingFor": "p95-first-token failed on 912",
        "stableRevision": "5b7c9d", "canaryRevision": "6d5f8c", "weights": {"desired": 0, "applied": 0},
        "step": {"startedAt": "2026-03-01T12:00:00Z"},
        "abort": {"revision": "6d5f8c", "at": "2026-03-01T12:05:30Z", "step": "6/10", "weight": 25, "gate": "p95-first-token",
                  "reason": "gate p95-first-token: 912 breaks result[0] <= 800",
                  "explanation": "canary calls tools 3.1 times a call, stable 2.2 times"},
        "gates": [{"name": "p95-first-token", "kind": "Step", "verdict": "Fail", "consequence": "Abort", "value": "912", "message": "912 breaks result[0] <= 800"}],
        "revisions": [{"hash": "6d5f8c", "number": 7, "role": "Draining", "replicas": 3, "ready": 3, "aborted": true, "retiredAt": "2026-03-01T12:05:30Z"}],
        "decisions": [{"at": "2026-03-01T12:05:30Z", "step": "6/10", "decision": "Aborted", "reason": "gate p95-first-token failed",
                       "values": ["p95-first-token=912 (Fail)", "eval-pass-rate=0.95 (Pass)"]}],
    })));
    insta::assert_snapshot!(view);
}

#[test]
fn a_release_that_waits_for_a_person() {
    let view = shown(&rollout(json!({
        "observedGeneration": 3, "phase": "Paused", "attempt": 1, "currentStep": 7, "stepDisplay": "8/10", "userPaused": true,
        "stableRevision": "5b7c9d", "canaryRevision": "6d5f8c", "weights": {"desired": 50, "applied": 25},
        "decisions": [{"at": "2026-03-01T12:05:30Z", "step": "8/10", "decision": "Paused", "reason": "lunch", "by": "jane"}],
        "conditions": [
            {"type": "RoutesInSync", "status": "False", "reason": "ForeignEdit", "lastTransitionTime": "2026-03-01T12:00:00Z",
             "message": "VirtualService voice-vs said 40 %, wanted 50 %"},
            {"type": "InvalidSpec", "status": "True", "reason": "Errors", "lastTransitionTime": "2026-03-01T12:00:00Z",
             "message": "spec.steps[1].pause: too short\nspec.replicas: too many"},
            {"type": "Healthy", "status": "False", "reason": "Releasing", "message": "not shown", "lastTransitionTime": "2026-03-01T12:00:00Z"},
        ],
    })));
    insta::assert_snapshot!(view);
}

#[test]
fn what_would_cut_calls_is_shown_with_its_fix() {
    let found = json!([
        {"code": "GracePeriodTooShort", "sentence": "a pod is killed after 30 s.", "fix": "set it to 3660 or more."},
        {"code": "RouteTimeout", "sentence": "every call ends after 10 s.", "fix": "take it out."},
    ]);
    let view = shown(&rollout(json!({"observedGeneration": 4, "phase": "Healthy", "preflight": found})));
    let shown: Vec<&str> = view.lines().skip_while(|l| *l != "PREFLIGHT").take(5).map(str::trim_end).collect();
    let expected = [
        "PREFLIGHT",
        "  GracePeriodTooShort  a pod is killed after 30 s.",
        "                       Fix: set it to 3660 or more.",
        "  RouteTimeout         every call ends after 10 s.",
        "                       Fix: take it out.",
    ];
    assert_eq!(shown, expected, "{view}");
}

#[test]
fn nothing_under_way() {
    let view = shown(&rollout(json!({
        "observedGeneration": 4, "phase": "Healthy", "attempt": 1, "currentStep": 10, "stepDisplay": "10/10",
        "stableRevision": "6d5f8c", "canaryRevision": "6d5f8c",
    })));
    insta::assert_snapshot!(view);
}

#[test]
fn workers_that_pull_their_jobs_say_what_they_reach_and_which_pods_end() {
    let view = shown(&rollout(json!({
        "observedGeneration": 4, "phase": "Paused", "attempt": 1, "currentStep": 7, "stepDisplay": "8/10",
        "stableRevision": "5b7c9d", "canaryRevision": "6d5f8c", "weights": {"desired": 75, "applied": 50},
        "step": {"weightSince": "2026-03-01T12:05:30Z"},
        "revisions": [{"hash": "aa01", "number": 5, "role": "Draining", "replicas": 0, "ready": 0, "ending": 2, "liveCalls": 3}],
        "conditions": [{"type": "WeightsReachable", "status": "False", "reason": "BeyondReach", "message": "half is the most",
            "lastTransitionTime": "2026-03-01T12:00:00Z"}],
    })));
    let lines: Vec<String> = view.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "Weight 50 % canary 6d5f8c, 50 % stable 5b7c9d (the step asks for 75 %)",
        "Reach half is the most",
        "5 aa01 Draining 0/0 ready 2 pods ending, 3 live calls",
    ] {
        assert!(lines.iter().any(|l| l == line), "{line}: {view}");
    }
}

#[test]
fn not_looked_at_yet() {
    let mut rollout = rollout(json!({}));
    rollout.status = None;
    assert_eq!(shown(&rollout), "voice-agent  namespace voice\nThe operator has not looked at it yet.\n");
}

#[test]
fn every_kind_of_step_says_what_it_does() {
    let mut rollout = rollout(json!({"currentStep": 1, "observedGeneration": 4}));
    let steps = json!([
        {"setWeight": 0}, {"setCanaryScale": {"replicas": 1}}, {"setCanaryScale": {"weight": 20}},
        {"setCanaryScale": {"matchTrafficWeight": true}}, {"pause": {}}, {"pause": {"duration": "1h30m"}},
        {"analysis": {"templates": [{"name": "t"}], "require": ["a", "b"]}}, {"analysis": {"require": ["a"]}},
    ]);
    rollout.spec.steps = serde_json::from_value(steps).unwrap();
    let view = steps::view(&rollout.spec, rollout.status.as_ref().unwrap(), now(), Paint::default()).join("\n");
    insta::assert_snapshot!(view);
    rollout.spec.steps = None;
    let view = steps::view(&rollout.spec, rollout.status.as_ref().unwrap(), now(), Paint::default()).join("\n");
    insta::assert_snapshot!(view);
}

#[test]
fn what_a_provider_says_cannot_move_the_cursor() {
    let shown = shown(&rollout(json!({
        "message": "\u{1b}[2Jall is well",
        "gates": [{"name": "judge", "kind": "Step", "message": "PASS\r\n\u{1b}]0;title\u{7}"}],
    })));
    assert!(!shown.contains('\u{1b}') && !shown.contains('\r') && !shown.contains('\u{7}'), "{shown:?}");
}

#[test]
fn a_step_that_a_person_overrode_is_no_plain_tick() {
    let status =
        json!({"observedGeneration": 4, "phase": "Progressing", "currentStep": 2, "stepDisplay": "3/10", "overriddenSteps": ["2/10"]});
    let shown = shown(&rollout(status));
    let steps: Vec<&str> = shown.lines().filter(|l| l.contains('✓')).collect();
    assert!(!steps[0].contains("overridden") && steps[1].contains("(overridden by a person)"), "{shown}");
}

#[test]
fn counted_calls_are_shown_at_the_weight_that_workers_reach() {
    let comparison = json!({"canary": {"calls": 41, "bad": 7}, "stable": {"calls": 902, "bad": 31}, "logEvidence": 3.5, "logAbortLine": 4.6,
        "ticks": 9, "minCanary": 30, "pass": [
            {"weight": 50, "below": "odds ratio 3", "logEvidence": -0.5, "logLine": 2.996},
            {"weight": 75, "below": "odds ratio 2", "logEvidence": 0.5, "logLine": 2.996}]});
    let run: VoiceAnalysisRun = serde_json::from_value(json!({"apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceAnalysisRun",
        "metadata": {"name": "r"}, "spec": {"rollout": "voice-agent", "rolloutUid": "u", "kind": "Background", "revision": "6d5f8c",
            "attempt": 1, "gates": []},
        "status": {"gates": [{"name": "first-token", "comparison": comparison}]}}))
    .unwrap();
    let mut rollout = rollout(json!({"observedGeneration": 4, "phase": "Progressing", "weights": {"desired": 75, "applied": 50}}));
    let below = |rollout: &VoiceRollout| render(rollout, std::slice::from_ref(&run), now(), Paint::default());
    assert!(below(&rollout).contains("below odds ratio 2"), "{}", below(&rollout));
    (rollout.spec.traffic.istio, rollout.spec.traffic.replicas) = (None, Some(Default::default()));
    assert!(below(&rollout).contains("below odds ratio 3"), "{}", below(&rollout));
}

#[test]
fn spans_have_two_units_at_most() {
    let spans = [-5, 0, 59, 60, 61, 3600, 5400, 86_399, 86_400, 93_600].map(|s| span(SignedDuration::from_secs(s)));
    assert_eq!(spans, ["0s", "0s", "59s", "1m", "1m1s", "1h", "1h30m", "23h59m", "1d", "1d2h"]);
}

#[test]
fn gates_that_count_calls_show_what_their_run_says() {
    let rollout = rollout(json!({
        "observedGeneration": 4, "phase": "Progressing", "attempt": 2, "falseAbortSpent": 0.02, "currentStep": 1, "stepDisplay": "2/8",
        "stableRevision": "5b7c9d", "canaryRevision": "6d5f8c", "weights": {"desired": 25, "applied": 25},
        "gates": [{"name": "first-token", "kind": "Background", "message": "> 900: 6 of 40 canary calls, 31 of 902 stable",
            "toldAt": "2026-03-01T12:09:00Z"}],
    }));
    let comparison = json!({"edge": 900, "canary": {"calls": 41, "bad": 7}, "stable": {"calls": 902, "bad": 31}, "estimate": 5.8, "low": 1.21,
        "logEvidence": 3.526, "logAbortLine": 4.605, "ticks": 9, "dataAt": "2026-03-01T12:09:45Z", "minCanary": 30,
        "toAbort": {"calls": 12, "seconds": 400}, "pass": [
            {"weight": 5, "below": "odds ratio 4", "logEvidence": 0.5, "logLine": 2.996},
            {"weight": 25, "below": "odds ratio 3", "logEvidence": -0.5, "logLine": 2.996, "toPass": {"calls": 700}}]});
    let run: VoiceAnalysisRun = serde_json::from_value(json!({"apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceAnalysisRun",
        "metadata": {"name": "r"}, "spec": {"rollout": "voice-agent", "rolloutUid": "u", "kind": "Background", "revision": "6d5f8c",
            "attempt": 2, "gates": []},
        "status": {"gates": [{"name": "first-token", "comparison": comparison, "warnings": ["a\u{1b}[31m wide bucket"]}]}}))
    .unwrap();
    insta::assert_snapshot!(render(&rollout, &[run], now(), Paint::default()));
}

#[test]
fn the_view_fits_narrow_and_wide_terminals() {
    let rollout = rollout(json!({
        "observedGeneration": 4, "phase": "Progressing", "attempt": 1, "currentStep": 2, "stepDisplay": "3/10",
        "message": "analysis voice-canary runs", "waitingFor": "gate p95-first-token: data since the weight change, 2m20s of 5m15s",
        "stableRevision": "5b7c9d", "canaryRevision": "6d5f8c", "weights": {"desired": 5, "applied": 5},
        "step": {"startedAt": "2026-03-01T12:07:40Z"},
        "gates": [
            {"name": "eval-pass-rate", "kind": "Step", "verdict": "Pass", "value": "0.95", "message": "0.95 >= 0.92"},
            {"name": "p95-first-token", "kind": "Step", "message": "waits until 12:12:55Z: the query looks back 5m, and the weight changed at 12:07:40Z"},
        ],
        "revisions": [{"hash": "6d5f8c", "number": 7, "role": "Canary", "replicas": 1, "ready": 1}],
        "decisions": [{"at": "2026-03-01T12:02:00Z", "revision": "6d5f8c", "decision": "ReleaseStarted", "reason": "releasing revision 6d5f8c beside stable 5b7c9d"}],
    }));
    let shown = |width| render(&rollout, &[], now(), Paint { colour: false, width: Some(width) });
    for width in [60, 140] {
        assert!(shown(width).lines().all(|l| l.chars().count() <= width), "{}", shown(width));
    }
    insta::assert_snapshot!("terminal_140", shown(140));
    insta::assert_snapshot!("terminal_60", shown(60));
}
