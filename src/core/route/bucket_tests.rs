use proptest::prelude::*;
use regex::Regex;
use serde_json::json;

use super::tests::{applied, hosts, subsets, to, vs};
use super::*;
use crate::api::stickiness::{AlwaysStable, HeaderBuckets};

fn settings(buckets: i32) -> HeaderBuckets {
    HeaderBuckets { header: "x-voice-bucket".into(), buckets, always_stable: Vec::new() }
}

fn pinned(buckets: i32) -> HeaderBuckets {
    let values = vec!["acme".into(), "b.c|d".into()];
    HeaderBuckets { always_stable: vec![AlwaysStable { header: "x-tenant".into(), values }], ..settings(buckets) }
}

fn own(settings: HeaderBuckets) -> Own {
    Own::new("voice", "agent", Wanted::Buckets(settings))
}

fn read_all(vs: &Value, own: &Own) -> Vec<RouteWeights> {
    read(vs, &["calls".to_owned()], &hosts(), own).unwrap()
}

/// The VirtualService after a write that succeeded; itself where there was nothing to write.
fn set(vs: &Value, own: &Own, canary: i32, direction: Direction) -> Value {
    match patch(vs, &read_all(vs, own), own, canary, direction) {
        Some(patch) => applied(vs, &patch).unwrap(),
        None => vs.clone(),
    }
}

fn names(vs: &Value) -> Vec<&str> {
    vs["spec"]["http"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap_or_default()).collect()
}

fn full_match(regex: &str, text: &str) -> bool {
    Regex::new(&format!("^(?:{regex})$")).unwrap().is_match(text)
}

/// A call: path and headers.
struct Call<'a>(&'a str, Vec<(&'a str, String)>);

/// The http route that answers, as Envoy picks it: the first with a match that holds.
fn answers<'a>(vs: &'a Value, call: &Call<'_>) -> Option<&'a Value> {
    let text = |condition: &Value, text: &str| match (&condition["exact"], &condition["prefix"], &condition["regex"]) {
        (Value::String(exact), _, _) => text == exact,
        (_, Value::String(prefix), _) => text.starts_with(prefix.as_str()),
        (_, _, Value::String(regex)) => full_match(regex, text),
        _ => true,
    };
    let headers = |m: &Value| {
        let wanted = m["headers"].as_object();
        let has = |name: &str, condition: &Value| call.1.iter().any(|(n, v)| *n == name && text(condition, v));
        wanted.is_none_or(|all| all.iter().all(|(name, condition)| has(name, condition)))
    };
    let holds = |m: &Value| (m["uri"].is_null() || text(&m["uri"], call.0)) && headers(m);
    let http = vs["spec"]["http"].as_array().unwrap();
    http.iter().find(|r| r["match"].as_array().is_none_or(|all| all.is_empty() || all.iter().any(holds)))
}

/// Destination hosts and weights of the route that answers.
fn goes_to(vs: &Value, call: &Call<'_>) -> Vec<(String, i64)> {
    let route = answers(vs, call).expect("answered");
    let to = |d: &Value| (d["destination"]["host"].as_str().unwrap().to_owned(), d["weight"].as_i64().unwrap_or(100));
    route["route"].as_array().unwrap().iter().map(to).filter(|(_, weight)| *weight > 0).collect()
}

fn agent() -> Value {
    vs(json!([
        {"name": "status-page", "match": [{"uri": {"exact": "/status"}}], "directResponse": {"status": 204}},
        {
            "name": "calls", "match": [{"uri": {"prefix": "/ws"}}, {"uri": {"prefix": "/v1"}, "headers": {"x-a": {"exact": "b"}}}],
            "route": [to("agent-stable", 100), to("agent-canary", 0)], "timeout": "0s", "retries": {"attempts": 0},
            "headers": {"request": {"set": {"x-telephony": "yes"}}}, "corsPolicy": {"maxAge": "3600s"}, "rewrite": {"uri": "/"},
            "x-unknown": {"deep": [1]},
        },
        {"name": "rest", "route": [to("website", 100)]},
    ]))
}

#[test]
fn the_expression_takes_the_buckets_below_the_weight_and_no_others() {
    for buckets in [100, 1000] {
        let places = if buckets == 1000 { 3 } else { 2 };
        for weight in 0..=100i64 {
            let regex = below(weight, buckets).map(|r| Regex::new(&format!("^(?:{r})$")).unwrap());
            for bucket in 0..buckets {
                let text = format!("{bucket:0places$}");
                let taken = regex.as_ref().is_some_and(|r| r.is_match(&text));
                assert_eq!(taken, i64::from(bucket) * 100 < weight * i64::from(buckets), "{text} at {weight}: {regex:?}");
            }
            // Anything but a zero-padded bucket stays with stable.
            for text in ["", "0", "7", "0000", "00 ", " 00", "-1", "1e", "x00", "00x", "00,00"] {
                assert!(regex.as_ref().is_none_or(|r| !r.is_match(text)), "{text:?} at {weight}: {regex:?}");
            }
            let length = below(weight, buckets).unwrap_or_default().len();
            assert!(length <= 30, "{length} characters at {weight}");
            assert_eq!(below(weight, buckets).and_then(|r| buckets::weight_of(&r)), (weight > 0).then_some(weight));
        }
    }
    assert_eq!(
        [5, 25, 50, 100].map(|w| below(w, 100).unwrap()),
        ["0[0-4]", "[0-1][0-9]|2[0-4]", "[0-4][0-9]", "[0-9]{2}"].map(String::from)
    );
    assert_eq!([5, 100].map(|w| below(w, 1000).unwrap()), ["0[0-4][0-9]", "[0-9]{3}"].map(String::from));
}

#[test]
fn a_caller_keeps_its_version_over_5_25_50_and_100() {
    for settings in [settings(100), settings(1000)] {
        let (own, places) = (own(settings.clone()), if settings.buckets == 1000 { 3 } else { 2 });
        let mut now = agent();
        let mut on_canary = vec![false; usize::try_from(settings.buckets).unwrap()];
        for weight in [5, 25, 50, 100] {
            now = set(&now, &own, weight, Direction::Raise);
            for (bucket, was) in on_canary.iter_mut().enumerate() {
                let call = |path| Call(path, vec![("x-voice-bucket", format!("{bucket:0places$}")), ("x-a", "b".into())]);
                let to = goes_to(&now, &call("/ws"));
                assert_eq!(to, goes_to(&now, &call("/v1/turn")), "both matches of the route");
                let is = to == [("agent-canary".to_owned(), 100)];
                assert!(is || to == [("agent-stable".to_owned(), 100)], "one version: {to:?}");
                assert!(is || !*was, "bucket {bucket} moved back at {weight}");
                *was = is;
                assert_eq!(goes_to(&now, &call("/elsewhere")), [("website".to_owned(), 100)], "nothing else is taken");
                assert!(answers(&now, &call("/status")).unwrap()["directResponse"].is_object());
            }
            let share = on_canary.iter().filter(|c| **c).count() * 100 / on_canary.len();
            assert_eq!(share, usize::try_from(weight).unwrap());
            // Without the header by weight; with one that is no bucket to stable.
            let weights = goes_to(&now, &Call("/ws", vec![]));
            assert_eq!(weights.iter().find(|(h, _)| h == "agent-canary").map(|(_, w)| *w), Some(i64::from(weight)));
            let odd = Call("/ws", vec![("x-voice-bucket", "nine".into())]);
            assert_eq!(goes_to(&now, &odd), [("agent-stable".to_owned(), 100)]);
        }
        assert_eq!(set(&now, &own, 0, Direction::Lower), agent(), "an abort takes everything away in one write");
    }
}

#[test]
fn callers_that_are_always_stable_stay_there() {
    let own = own(pinned(100));
    let now = set(&agent(), &own, 50, Direction::Raise);
    let part = |part: &str| format!("vr/voice/agent/calls/{part}");
    assert_eq!(names(&now), ["status-page", &part("always-stable"), &part("canary"), &part("stable"), "calls", "rest"]);
    let tenant = |tenant: &str| Call("/ws", vec![("x-voice-bucket", "07".into()), ("x-tenant", tenant.into())]);
    for (who, host) in [("acme", "agent-stable"), ("b.c|d", "agent-stable"), ("bxc", "agent-canary"), ("acm", "agent-canary")] {
        assert_eq!(goes_to(&now, &tenant(who)), [(host.to_owned(), 100)], "{who}");
    }
    assert_eq!(goes_to(&now, &Call("/ws", vec![("x-tenant", "acme".into())])), [("agent-stable".to_owned(), 100)], "without a bucket");
}

#[test]
fn generated_routes_say_all_that_the_managed_one_says() {
    let now = set(&agent(), &own(pinned(100)), 25, Direction::Raise);
    let without = |route: &Value| {
        let mut route = route.clone();
        route.as_object_mut().unwrap().retain(|field, _| !["name", "match", "route"].contains(&field.as_str()));
        route
    };
    for i in 1..4 {
        assert_eq!(without(&now["spec"]["http"][i]), without(&agent()["spec"]["http"][1]));
        assert_eq!(now["spec"]["http"][i]["route"].as_array().unwrap().len(), 1);
    }
    // What the route says changes: so do they.
    let mut edited = now.clone();
    edited["spec"]["http"][4]["timeout"] = json!("3600s");
    let own = own(pinned(100));
    assert_eq!(read_all(&edited, &own)[0].buckets, Buckets::Wrong(25));
    let right = set(&edited, &own, 25, Direction::Raise);
    assert!((1..5).all(|i| right["spec"]["http"][i]["timeout"] == "3600s"));
    assert_eq!(read_all(&right, &own)[0].buckets, Buckets::At(25));
}

#[test]
fn subsets_go_the_same_way() {
    let to = |subset: &str, weight: i64| json!({"destination": {"host": "agent", "subset": subset}, "weight": weight});
    let before = vs(json!([{"route": [to("new", 0), to("old", 100)]}]));
    let own = own(settings(100));
    let raise = |vs: &Value, weight| {
        let routes = read(vs, &[], &subsets(), &own).unwrap();
        applied(vs, &patch(vs, &routes, &own, weight, Direction::Raise).unwrap()).unwrap()
    };
    let now = raise(&raise(&before, 5), 25);
    assert_eq!(names(&now), ["vr/voice/agent//canary", "vr/voice/agent//stable", ""]);
    let subset = |i: usize| now["spec"]["http"][i]["route"][0]["destination"]["subset"].clone();
    assert_eq!((subset(0), subset(1)), (json!("new"), json!("old")));
    assert!(read(&now, &[], &subsets(), &Own::default()).unwrap_err().0.contains("3 http routes"), "they are this rollout's own");
}

#[test]
fn whatever_is_not_as_it_should_be_is_seen_and_put_right() {
    let own = own(pinned(100));
    let right = set(&agent(), &own, 25, Direction::Raise);
    type OnRoutes = fn(&mut Vec<Value>);
    let edits: [(&str, OnRoutes); 7] = [
        ("missing", |http| drop(http.remove(2))),
        ("all missing", |http| drop(http.drain(1..4))),
        ("reordered", |http| http.swap(2, 3)),
        ("below the route", |http| http.swap(3, 4)),
        ("a route between", |http| http.insert(4, json!({"name": "new", "match": [{"uri": {"prefix": "/new"}}], "route": []}))),
        ("too wide", |http| http[2]["match"][0]["headers"]["x-voice-bucket"]["regex"] = json!(".*")),
        ("another destination", |http| http[3]["route"][0]["destination"]["host"] = json!("agent-canary")),
    ];
    for (what, edit) in edits {
        let mut edited = right.clone();
        edit(edited["spec"]["http"].as_array_mut().unwrap());
        let seen = &read_all(&edited, &own)[0];
        assert!(!seen.says(25) && seen.is_below(25), "{what}: {seen:?}");
        let mut wanted = right.clone();
        if what == "a route between" {
            wanted["spec"]["http"].as_array_mut().unwrap().insert(1, edited["spec"]["http"][4].clone());
        }
        assert_eq!(set(&edited, &own, 25, Direction::Raise), wanted, "{what}");
        // An abort takes away whatever there is of ours.
        let aborted = set(&edited, &own, 0, Direction::Lower);
        assert!(names(&aborted).iter().all(|n| !n.starts_with("vr/")), "{what}: {:?}", names(&aborted));
        assert_eq!(goes_to(&aborted, &Call("/ws", vec![("x-voice-bucket", "00".into())])), [("agent-stable".to_owned(), 100)]);
    }
    let mut wide = right.clone();
    wide["spec"]["http"][2]["match"][0]["headers"]["x-voice-bucket"]["regex"] = json!(".*");
    assert_eq!((read_all(&wide, &own)[0].given(), read_all(&right, &own)[0].given()), (100, 25));
}

#[test]
fn what_was_made_for_a_route_that_is_gone_or_renamed_is_taken_away() {
    let own = own(settings(100));
    let mut renamed = set(&agent(), &own, 25, Direction::Raise);
    renamed["spec"]["http"][3]["name"] = json!("voice");
    assert!(own.has_strays(&renamed, ["voice"]));
    let routes = read(&renamed, &["voice".to_owned()], &hosts(), &own).unwrap();
    let now = applied(&renamed, &patch(&renamed, &routes, &own, 25, Direction::Raise).unwrap()).unwrap();
    assert_eq!(names(&now), ["status-page", "vr/voice/agent/voice/canary", "vr/voice/agent/voice/stable", "voice", "rest"]);

    let mut gone = now;
    gone["spec"]["http"].as_array_mut().unwrap().remove(3);
    let left = own.of_left("voice");
    assert!(left.has_strays(&gone, []) && !own.of_left("other").has_strays(&gone, []));
    let after = applied(&gone, &patch(&gone, &[], &left, 0, Direction::Lower).unwrap()).unwrap();
    assert_eq!(names(&after), ["status-page", "rest"]);
}

#[test]
fn settings_that_are_wrong_neither_change_what_stands_nor_outlive_an_abort() {
    let right = set(&agent(), &own(settings(100)), 25, Direction::Raise);
    let wrong = Own::new("voice", "agent", Wanted::AsTheyAre);
    assert!(read_all(&right, &wrong)[0].says(25));
    assert_eq!(patch(&right, &read_all(&right, &wrong), &wrong, 25, Direction::Raise), None);
    assert_eq!(set(&right, &wrong, 0, Direction::Lower), agent());
    // And without any settings they go.
    let none = Own::new("voice", "agent", Wanted::None);
    assert_eq!(names(&set(&right, &none, 25, Direction::Raise)), names(&agent()));
}

#[test]
fn a_route_whose_conditions_cannot_be_joined_is_refused_and_still_lowered() {
    let mut own_header = agent();
    own_header["spec"]["http"][1]["match"][0]["headers"] = json!({"X-Voice-Bucket": {"prefix": "0"}});
    let own = own(settings(100));
    let error = own.check(&own_header, &read_all(&own_header, &own)).unwrap_err().0;
    assert!(error.contains("voice/agent") && error.contains("\"calls\"") && error.contains("leave it to stickiness"), "{error}");
    own_header["spec"]["http"][1]["route"] = json!([to("agent-stable", 75), to("agent-canary", 25)]);
    let lowered = set(&own_header, &own, 0, Direction::Lower);
    assert_eq!(read_all(&lowered, &own)[0].canary, 0);

    let many = (0..MAX).map(|i| format!("tenant-{i:0100}")).collect();
    let wide = HeaderBuckets { always_stable: vec![AlwaysStable { header: "x-tenant".into(), values: many }], ..settings(100) };
    assert!(problems(&wide, "").is_empty(), "alone they are few enough");
    let own = self::own(wide);
    let error = own.check(&agent(), &read_all(&agent(), &own)).unwrap_err().0;
    assert!(error.contains("16384 is the most") && error.contains("always-stable"), "{error}");
}

/// Values of 100 characters that just fit into a route without conditions of its own.
const MAX: usize = 100;

#[test]
fn bad_settings_are_refused_with_the_path_and_what_to_write() {
    let said = |settings: HeaderBuckets| problems(&settings, "s").iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    for header in ["X-Voice-Bucket", "", "x voice", ":path", "uri", "authority", "x-voice:b"] {
        let text = said(HeaderBuckets { header: header.into(), ..settings(100) });
        assert!(text.starts_with("s.header: "), "{header}: {text}");
    }
    assert!(said(settings(10)).starts_with("s.buckets: 10 is neither 100"), "{}", said(settings(10)));
    let with = |values: &[&str]| {
        let values = values.iter().map(|v| (*v).to_owned()).collect();
        said(HeaderBuckets { always_stable: vec![AlwaysStable { header: "x-t".into(), values }], ..settings(100) })
    };
    assert!(with(&[]).contains("s.alwaysStable[0].values: name at least one"), "{}", with(&[]));
    assert!(with(&["a", "b", "a"]).contains("s.alwaysStable[0].values[2]: \"a\" stands twice"));
    assert!(with(&[" a"]).contains("without spaces") && with(&["a\n"]).contains("values[0]"));
    let many: Vec<String> = (0..201).map(|i| i.to_string()).collect();
    assert!(with(&many.iter().map(String::as_str).collect::<Vec<_>>()).contains("201 values, and 200 is the most"));
    let long: Vec<String> = (0..200).map(|i| format!("{i:0100}")).collect();
    assert!(with(&long.iter().map(String::as_str).collect::<Vec<_>>()).contains("16384 is the most"));
    assert_eq!(said(pinned(1000)), "");
}

#[test]
fn a_route_above_that_takes_every_call_is_told() {
    let own = own(settings(100));
    let mut now = set(&agent(), &own, 5, Direction::Raise);
    assert_eq!(shadowed(&now, &own, &read_all(&now, &own)), None);
    now["spec"]["http"].as_array_mut().unwrap().insert(1, json!({"name": "all", "route": [to("website", 100)]}));
    let told = shadowed(&now, &own, &read_all(&now, &own)).unwrap();
    assert!(told.contains("\"all\" stands above \"calls\""), "{told}");
}

/// Something that others do to a VirtualService.
#[derive(Clone, Debug)]
enum Edit {
    Insert(usize),
    Remove(usize),
    Swap(usize, usize),
    Field(usize, u8),
    Weight(usize, i64),
    Regex(usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = || 0..8usize;
    prop_oneof![
        at().prop_map(Edit::Insert),
        at().prop_map(Edit::Remove),
        (at(), at()).prop_map(|(a, b)| Edit::Swap(a, b)),
        (at(), any::<u8>()).prop_map(|(i, n)| Edit::Field(i, n)),
        (at(), 0..=100i64).prop_map(|(i, w)| Edit::Weight(i, w)),
        at().prop_map(Edit::Regex),
    ]
}

/// Makes the edit, but never removes the managed routes or makes two of one name.
fn make(vs: &mut Value, edit: &Edit, number: usize) {
    let http = vs["spec"]["http"].as_array_mut().unwrap();
    let n = http.len();
    match *edit {
        Edit::Insert(i) => http.insert(i % (n + 1), json!({"name": format!("new-{number}"), "match": [{"uri": {"exact": "/new"}}]})),
        Edit::Remove(i) if http[i % n]["name"].as_str().is_some_and(|name| name.contains("vr/") || name.contains("new")) => {
            http.remove(i % n);
        }
        Edit::Swap(a, b) => http.swap(a % n, b % n),
        Edit::Field(i, value) => http[i % n]["timeout"] = json!(format!("{value}s")),
        Edit::Weight(i, weight) if http[i % n]["route"].as_array().is_some_and(|all| all.len() == 2) => {
            http[i % n]["route"][0]["weight"] = json!(100 - weight);
            http[i % n]["route"][1]["weight"] = json!(weight);
        }
        Edit::Regex(i) if http[i % n]["match"][0]["headers"]["x-voice-bucket"]["regex"].is_string() => {
            http[i % n]["match"][0]["headers"]["x-voice-bucket"]["regex"] = json!("[0-8].*");
        }
        Edit::Remove(_) | Edit::Weight(..) | Edit::Regex(_) => {}
    }
}

/// The VirtualService without what is ours: generated routes, and weights of the managed ones.
fn theirs(vs: &Value, managed: &[String]) -> Value {
    let mut vs = vs.clone();
    let http = vs["spec"]["http"].as_array_mut().unwrap();
    http.retain(|r| !may_be_generated(r));
    for route in http.iter_mut().filter(|r| managed.iter().any(|m| r["name"] == *m)) {
        for destination in route["route"].as_array_mut().unwrap() {
            destination.as_object_mut().unwrap().remove("weight");
        }
    }
    vs
}

fn two_routes() -> Value {
    let split = json!([to("agent-stable", 100), to("agent-canary", 0)]);
    vs(json!([
        {"name": "status-page", "match": [{"uri": {"exact": "/status"}}], "directResponse": {"status": 204}},
        {"name": "a", "match": [{"uri": {"prefix": "/a"}}], "route": split, "timeout": "0s"},
        {"name": "b", "match": [{"uri": {"prefix": "/b"}}, {"headers": {"x-b": {}}}], "route": split},
        {"name": "rest", "route": [to("website", 100)]},
    ]))
}

proptest! {
    /// I1, I3, I11: over any weights and any edits of others, only weights and our own routes are written; a raise ends at
    /// what was asked for, and a lowering gives the canary no bucket more.
    #[test]
    fn only_weights_and_our_own_routes_change(
        steps in prop::collection::vec((prop::collection::vec(edit(), 0..3), 0..=100i32, any::<bool>()), 1..8),
        thousand in any::<bool>(),
    ) {
        let own = own(pinned(if thousand { 1000 } else { 100 }));
        let managed = ["a".to_owned(), "b".to_owned()];
        let mut now = two_routes();
        for (i, (edits, weight, raise)) in steps.iter().enumerate() {
            edits.iter().enumerate().for_each(|(k, edit)| make(&mut now, edit, i * 10 + k));
            let before = read(&now, &managed, &hosts(), &own).unwrap();
            let direction = if *raise { Direction::Raise } else { Direction::Lower };
            let after = match patch(&now, &before, &own, *weight, direction) {
                Some(patch) => applied(&now, &patch).unwrap(),
                None => now.clone(),
            };
            prop_assert_eq!(theirs(&now, &managed).to_string(), theirs(&after, &managed).to_string());
            let seen = read(&after, &managed, &hosts(), &own).unwrap();
            for (was, is) in before.iter().zip(&seen) {
                let goal = if *raise { i64::from(*weight) } else { was.canary.min(i64::from(*weight)) };
                prop_assert!(is.says(goal), "{:?} is not at {}", is, goal);
                prop_assert!(*raise || is.given() <= was.given());
            }
            prop_assert_eq!(patch(&after, &seen, &own, *weight, direction), None);
            now = after;
        }
        let end = read(&now, &managed, &hosts(), &own).unwrap();
        let clear = patch(&now, &end, &own, 0, Direction::Lower).map_or(now.clone(), |p| applied(&now, &p).unwrap());
        prop_assert!(names(&clear).iter().all(|n| !n.starts_with("vr/")));
    }

    /// A patch that was made before somebody else moved a route is refused or does what it was made for.
    #[test]
    fn a_patch_on_an_old_copy_harms_nobody(edits in prop::collection::vec(edit(), 1..4), first in 1..=100i32, second in 0..=100i32, raise in any::<bool>()) {
        let own = own(pinned(100));
        let managed = ["a".to_owned(), "b".to_owned()];
        let read_both = |vs: &Value| read(vs, &managed, &hosts(), &own).unwrap();
        let start = two_routes();
        let old = applied(&start, &patch(&start, &read_both(&start), &own, first, Direction::Raise).unwrap()).unwrap();
        let direction = if raise { Direction::Raise } else { Direction::Lower };
        let Some(late) = patch(&old, &read_both(&old), &own, second, direction) else { return Ok(()) };
        let mut newer = old.clone();
        edits.iter().enumerate().for_each(|(k, edit)| make(&mut newer, edit, k));
        newer["metadata"]["resourceVersion"] = json!("8");
        if let Ok(after) = applied(&newer, &late) {
            prop_assert_eq!(direction, Direction::Lower);
            prop_assert_eq!(theirs(&newer, &managed).to_string(), theirs(&after, &managed).to_string());
            for (was, is) in read_both(&newer).iter().zip(read_both(&after)) {
                prop_assert!(is.canary <= was.canary);
            }
        }
    }
}
