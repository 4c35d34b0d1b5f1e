use serde_json::json;

use super::*;
use crate::cli::samples::now;

fn status() -> VoiceRolloutStatus {
    serde_json::from_value(json!({
        "phase": "Progressing", "message": "step 3/10", "stableRevision": "5b7c9d", "canaryRevision": "6d5f8c",
        "revisions": [
            {"hash": "6d5f8c", "number": 7, "role": "Canary"},
            {"hash": "5b7c9d", "number": 6, "role": "Stable", "wasStable": true},
            {"hash": "bb02", "number": 5, "role": "Retired", "aborted": true},
            {"hash": "aa01", "number": 4, "role": "Retired", "wasStable": true},
            {"hash": "9900", "number": 3, "role": "Retired"},
        ],
        "decisions": [
            {"at": "2026-03-01T10:02:00Z", "revision": "bb02", "step": "6/10", "decision": "Aborted",
             "reason": "gate p95-first-token failed at step 6/10, weight 25: 912 breaks result[0] <= 800", "values": ["p95-first-token=912 (Fail)"]},
            {"at": "2026-03-01T11:02:00Z", "revision": "5b7c9d", "decision": "Promoted", "reason": "revision 5b7c9d is stable: every step passed", "by": "jane"},
        ],
    }))
    .unwrap()
}

fn sets() -> BTreeMap<String, ReplicaSet> {
    let set = |hash: &str, image: &str| {
        let set = json!({"metadata": {"creationTimestamp": "2026-03-01T09:00:00Z"}, "spec": {"selector": {}, "template": {"spec": {"containers": [
            {"name": "agent", "image": image}, {"name": "proxy", "image": "envoy:1"}]}}}});
        (hash.to_owned(), serde_json::from_value(set).unwrap())
    };
    [("6d5f8c", "ghcr.io/acme/voice-agent:v7"), ("5b7c9d", "ghcr.io/acme/voice-agent:v6"), ("bb02", "ghcr.io/acme/voice-agent:v5")]
        .map(|(hash, image)| set(hash, image))
        .into()
}

#[test]
fn what_became_of_every_revision() {
    let entries = entries(&status(), &sets());
    let outcomes: Vec<&str> = entries.iter().map(|e| e.outcome.as_str()).collect();
    assert_eq!(outcomes, ["being released", "stable", "aborted", "was stable", "replaced before it was stable"]);
    let paint = |width| Paint { colour: false, width: Some(width) };
    insta::assert_snapshot!("revisions_140", render(&entries, now(), paint(140)));
    insta::assert_snapshot!("revisions_60", render(&entries, now(), paint(60)));
}

#[test]
fn every_decision_with_its_values_and_who() {
    let text = decisions(&status().decisions, Paint::default());
    assert!(text.contains("[p95-first-token=912 (Fail)]") && text.contains("(by jane)"), "{text}");
    assert_eq!(decisions(&[], Paint::default()), "nothing was decided yet\n");
    assert_eq!(render(&[], now(), Paint::default()), "there is no revision yet\n");
}
