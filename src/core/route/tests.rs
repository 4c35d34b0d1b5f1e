use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Without generated routes.
fn read(vs: &Value, names: &[String], split: &Split) -> Result<Vec<RouteWeights>, RouteError> {
    super::read(vs, names, split, &Own::default())
}

fn patch(vs: &Value, routes: &[RouteWeights], canary: i32, direction: Direction) -> Option<Patch> {
    super::patch(vs, routes, &Own::default(), canary, direction)
}

pub(super) fn hosts() -> Split {
    Split::Hosts { namespace: "voice".into(), stable: "agent-stable".into(), canary: "agent-canary".into() }
}

pub(super) fn subsets() -> Split {
    Split::Subsets { host: "agent".into(), namespace: "voice".into(), stable: "old".into(), canary: "new".into() }
}

pub(super) fn vs(http: Value) -> Value {
    json!({
        "metadata": {"name": "agent", "namespace": "voice", "resourceVersion": "7"},
        "spec": {"hosts": ["agent.example.com"], "http": http},
    })
}

pub(super) fn to(host: &str, weight: i64) -> Value {
    json!({"destination": {"host": host}, "weight": weight})
}

fn only(destinations: Value) -> Value {
    vs(json!([{"name": "calls", "route": destinations}]))
}

fn error(vs: &Value, names: &[&str], split: &Split) -> String {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    read(vs, &names, split).expect_err("accepted").0
}

pub(super) fn applied(vs: &Value, patch: &Patch) -> Result<Value, json_patch::PatchError> {
    let mut vs = vs.clone();
    json_patch::patch(&mut vs, &patch.0).map(|()| vs)
}

#[test]
fn every_way_to_write_a_host_of_the_namespace_is_the_service() {
    for host in ["agent-canary", "agent-canary.voice", "agent-canary.voice.svc", "agent-canary.voice.svc.cluster.local"] {
        let vs = only(json!([to(host, 5), to("agent-stable", 95)]));
        let want =
            RouteWeights { route: "calls".into(), index: 0, stable_at: 1, canary_at: 0, stable: 95, canary: 5, buckets: Buckets::Unused };
        assert_eq!(read(&vs, &[], &hosts()), Ok(vec![want]), "{host}");
    }
}

#[test]
fn a_service_of_the_same_name_elsewhere_is_not_the_service() {
    for host in
        ["agent-canary.other", "agent-canary.other.svc.cluster.local", "agent-canary.voice.svc.example.com", "agent-canary.voice.com.x"]
    {
        let vs = only(json!([to(host, 5), to("agent-stable", 95)]));
        let text = error(&vs, &[], &hosts());
        assert!(text.contains(host) && text.contains("agent-stable and agent-canary"), "{text}");
    }
}

#[test]
fn short_hosts_resolve_in_the_namespace_of_the_virtual_service() {
    let mut edge = only(json!([to("agent-stable", 95), to("agent-canary", 5)]));
    edge["metadata"]["namespace"] = json!("edge");
    let text = error(&edge, &[], &hosts());
    assert!(text.contains("edge/agent") && text.contains("agent-canary.voice.svc.cluster.local"), "{text}");

    edge["spec"]["http"][0]["route"] =
        json!([to("agent-stable.voice.svc.cluster.local", 95), to("agent-canary.voice.svc.cluster.local", 5)]);
    assert_eq!(read(&edge, &[], &hosts()).unwrap()[0].canary, 5);
}

#[test]
fn half_qualified_hosts_are_pointed_out() {
    let vs = only(json!([to("agent-stable.voice", 95), to("agent-canary", 5)]));
    let routes = read(&vs, &[], &hosts()).unwrap();
    let want = ("agent-stable.voice".to_owned(), "agent-stable.voice.svc.cluster.local".to_owned());
    assert_eq!(half_qualified(&vs, &routes), [want]);

    let vs = only(json!([to("agent-stable.voice.svc.cluster.local", 95), to("agent-canary", 5)]));
    let routes = read(&vs, &[], &hosts()).unwrap();
    assert_eq!(half_qualified(&vs, &routes), []);
}

#[test]
fn anything_but_the_two_destinations_is_refused_with_what_was_found() {
    let (stable, canary) = (to("agent-stable", 100), to("agent-canary", 0));
    let cases = [
        (json!([]), "no destination"),
        (json!([stable]), "one destination (agent-stable)"),
        (json!([stable, stable]), "2 destinations (agent-stable, agent-stable)"),
        (json!([stable, canary, to("legacy", 0)]), "3 destinations (agent-stable, agent-canary, legacy)"),
        (json!([stable, to("legacy", 0)]), "2 destinations (agent-stable, legacy)"),
        (json!([stable, {"weight": 0}]), "2 destinations (agent-stable, no host)"),
    ];
    for (destinations, found) in cases {
        let text = error(&only(destinations), &[], &hosts());
        for part in ["VirtualService voice/agent", "\"calls\"", found, "exactly two", "agent-stable and agent-canary"] {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }
    let redirect = vs(json!([{"redirect": {"uri": "/elsewhere"}}]));
    assert!(error(&redirect, &[], &hosts()).contains("without a name has no destination"));
}

#[test]
fn subsets_need_the_host_and_both_names() {
    let to = |host: &str, subset: &str, weight: i64| json!({"destination": {"host": host, "subset": subset}, "weight": weight});
    let vs = only(json!([to("agent.voice.svc.cluster.local", "new", 25), to("agent", "old", 75)]));
    let routes = read(&vs, &[], &subsets()).unwrap();
    assert_eq!((routes[0].canary_at, routes[0].canary, routes[0].stable), (0, 25, 75));

    for wrong in [to("other", "new", 25), to("agent", "newer", 25), json!({"destination": {"host": "agent"}})] {
        let text = error(&only(json!([wrong, to("agent", "old", 75)])), &[], &subsets());
        assert!(text.contains("agent subset old and agent subset new"), "{text}");
    }
    // A subset that was renamed since is a conflict.
    let patch = patch(&vs, &routes, 0, Direction::Lower).unwrap();
    let mut renamed = vs.clone();
    renamed["spec"]["http"][0]["route"][0]["destination"]["subset"] = json!("newer");
    assert!(applied(&vs, &patch).is_ok());
    assert!(applied(&renamed, &patch).is_err());
}

#[test]
fn route_names_are_looked_up() {
    let route = json!([to("agent-stable", 100), to("agent-canary", 0)]);
    let two = vs(json!([{"name": "calls", "route": route}, {"name": "chat", "route": route}, {"route": []}]));
    assert_eq!(read(&two, &["chat".into(), "chat".into()], &hosts()).unwrap().iter().map(|r| r.index).collect::<Vec<_>>(), [1]);

    let text = error(&two, &["cals"], &hosts());
    assert!(text.contains("no http route \"cals\"") && text.contains("\"calls\", \"chat\", one without a name"), "{text}");
    assert!(error(&two, &[], &hosts()).contains("has 3 http routes; name those to manage"));
    assert!(error(&vs(json!([])), &[], &hosts()).contains("has no http routes"));
    assert!(error(&json!({"metadata": {"name": "agent"}, "spec": {}}), &["x"], &hosts()).contains("it has none"));

    let doubled = vs(json!([{"name": "calls", "route": route}, {"name": "calls", "route": route}]));
    assert!(error(&doubled, &["calls"], &hosts()).contains("2 http routes \"calls\""));
}

#[test]
fn an_absent_weight_is_0_and_a_weight_that_is_no_number_is_refused() {
    let none = json!([{"destination": {"host": "agent-stable"}}, {"destination": {"host": "agent-canary"}}]);
    let vs = only(none);
    let routes = read(&vs, &[], &hosts()).unwrap();
    assert_eq!((routes[0].stable, routes[0].canary), (0, 0));
    let after = applied(&vs, &patch(&vs, &routes, 0, Direction::Lower).unwrap()).unwrap();
    assert_eq!(after["spec"]["http"][0]["route"][0]["weight"], 100);

    let text = error(&only(json!([to("agent-stable", 100), {"destination": {"host": "agent-canary"}, "weight": "5"}])), &[], &hosts());
    assert!(text.contains("the weight \"5\""), "{text}");
}

#[test]
fn a_lowering_patch_loses_against_a_deeper_one() {
    let before = only(json!([to("agent-stable", 50), to("agent-canary", 50)]));
    let routes = read(&before, &[], &hosts()).unwrap();
    let to_25 = patch(&before, &routes, 25, Direction::Lower).unwrap();
    let aborted = only(json!([to("agent-stable", 100), to("agent-canary", 0)]));
    assert!(applied(&aborted, &to_25).is_err());
    // Going to 0 wins against anything.
    let to_0 = patch(&before, &routes, 0, Direction::Lower).unwrap();
    let raised = only(json!([to("agent-stable", 0), to("agent-canary", 100)]));
    assert_eq!(applied(&raised, &to_0).unwrap(), aborted);
}

/// Some JSON that is none of our business.
pub(super) fn junk() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z/~.]{0,6}".prop_map(Value::from)
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("x-[a-z]{1,4}", inner, 0..3).prop_map(|m| json!(m)),
        ]
    })
}

fn weight() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![1 => Just(None), 4 => (0..=100i64).prop_map(Some), 1 => (-5..200i64).prop_map(Some)]
}

prop_compose! {
    fn destination(service: &'static str)(form in 0..4usize, weight in weight(), extra in junk(), port in any::<bool>()) -> Value {
        let host = [service.to_owned(), format!("{service}.voice"), format!("{service}.voice.svc"), format!("{service}.voice.svc.cluster.local")];
        let mut d = json!({"destination": {"host": host[form]}, "x-extra": extra});
        if let Some(weight) = weight {
            d["weight"] = weight.into();
        }
        if port {
            d["destination"]["port"] = json!({"number": 8080});
        }
        d
    }
}

prop_compose! {
    fn http_route()(stable in destination("agent-stable"), canary in destination("agent-canary"), turned in any::<bool>(), extra in junk()) -> Value {
        let route = if turned { json!([canary, stable]) } else { json!([stable, canary]) };
        json!({"route": route, "match": extra})
    }
}

/// A VirtualService with tls, tcp and unknown fields, and the names of the managed routes among its http routes.
pub(super) fn virtual_service() -> impl Strategy<Value = (Value, Vec<String>)> {
    let routes = prop::collection::vec((http_route(), any::<bool>()), 1..5);
    (routes, junk(), junk(), junk()).prop_map(|(routes, tls, tcp, extra)| {
        let mut names = Vec::new();
        let single = routes.len() == 1 && !routes[0].1;
        let http: Vec<Value> = routes
            .into_iter()
            .enumerate()
            .map(|(i, (mut route, managed))| {
                if !single {
                    route["name"] = json!(format!("r{i}"));
                    if managed || i == 0 {
                        names.push(format!("r{i}"));
                    }
                }
                route
            })
            .collect();
        let mut vs = vs(json!(http));
        vs["spec"]["tls"] = json!([{"route": [{"destination": {"host": "agent-canary"}, "weight": 5}], "x": tls}]);
        vs["spec"]["tcp"] = tcp;
        vs["x-unknown"] = extra;
        (vs, names)
    })
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Raise), Just(Direction::Lower)]
}

/// The VirtualService without the weights of `routes`.
fn rest(vs: &Value, routes: &[RouteWeights]) -> Value {
    let mut vs = vs.clone();
    for route in routes {
        for at in [0, 1] {
            vs["spec"]["http"][route.index]["route"][at].as_object_mut().unwrap().remove("weight");
        }
    }
    vs
}

fn goal(route: &RouteWeights, target: i32, direction: Direction) -> i64 {
    match direction {
        Direction::Raise => i64::from(target),
        Direction::Lower => route.canary.max(0).min(i64::from(target)),
    }
}

proptest! {
    /// I1, I11.
    #[test]
    fn only_the_weights_of_managed_routes_change((before, names) in virtual_service(), target in 0..=100i32, direction in direction()) {
        let routes = read(&before, &names, &hosts()).unwrap();
        let at_goal = routes.iter().all(|r| r.canary == goal(r, target, direction) && r.stable == 100 - r.canary);
        let Some(patch) = patch(&before, &routes, target, direction) else {
            prop_assert!(at_goal);
            return Ok(());
        };
        prop_assert!(!at_goal);
        let after = applied(&before, &patch).unwrap();
        let now = read(&after, &names, &hosts()).unwrap();
        for (was, is) in routes.iter().zip(&now) {
            prop_assert_eq!(is.stable + is.canary, 100);
            prop_assert!((0..=100).contains(&is.canary));
            prop_assert_eq!(is.canary, goal(was, target, direction));
        }
        prop_assert_eq!(rest(&before, &routes).to_string(), rest(&after, &routes).to_string());
        prop_assert!(self::patch(&after, &now, target, direction).is_none());
        let versioned = patch.0.iter().any(|op| op.path().as_str() == "/metadata/resourceVersion");
        prop_assert_eq!(versioned, direction == Direction::Raise);
    }

    /// I3: whatever the weights have become since, a lowering patch raises no route.
    #[test]
    fn a_lowering_patch_never_raises((before, names) in virtual_service(), target in 0..=100i32, since in prop::collection::vec(weight(), 4)) {
        let routes = read(&before, &names, &hosts()).unwrap();
        let Some(patch) = patch(&before, &routes, target, Direction::Lower) else { return Ok(()) };
        let mut other = before.clone();
        for (route, weight) in routes.iter().zip(&since) {
            if let Some(weight) = weight {
                other["spec"]["http"][route.index]["route"][route.canary_at]["weight"] = json!(weight);
            }
        }
        other["metadata"]["resourceVersion"] = json!("8");
        let seen = read(&other, &names, &hosts()).unwrap();
        if let Ok(after) = applied(&other, &patch) {
            for (was, is) in seen.iter().zip(read(&after, &names, &hosts()).unwrap()) {
                prop_assert!(is.canary <= was.canary.max(0));
            }
        } else {
            prop_assert!(target > 0);
        }
    }

    #[test]
    fn a_changed_order_of_routes_or_destinations_is_a_conflict((before, names) in virtual_service(), target in 0..=100i32, direction in direction(), turn in 1..4usize) {
        let routes = read(&before, &names, &hosts()).unwrap();
        let Some(patch) = patch(&before, &routes, target, direction) else { return Ok(()) };
        let http = before["spec"]["http"].as_array().unwrap();
        if http.len() > 1 {
            let mut turned = before.clone();
            turned["spec"]["http"].as_array_mut().unwrap().rotate_left(1 + (turn - 1) % (http.len() - 1));
            prop_assert!(applied(&turned, &patch).is_err());
        }
        let mut swapped = before.clone();
        for route in &routes {
            swapped["spec"]["http"][route.index]["route"].as_array_mut().unwrap().reverse();
        }
        prop_assert!(applied(&swapped, &patch).is_err());
    }
}
