use super::*;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + secs).unwrap()
}

fn pod(name: &str, calls: Option<u64>, since: i64) -> PodSeen {
    let idle_since = (calls == Some(0)).then(|| at(since));
    let cost = cost(if calls == Some(0) { Mark::Idle } else { Mark::Busy });
    PodSeen { name: name.into(), ready: true, calls, idle_since, cost, ..PodSeen::default() }
}

fn set(wanted: i32) -> ReplicaSetSeen {
    ReplicaSetSeen { name: "a".into(), wanted, exist: wanted, ready: wanted, available: wanted, current: true, ..ReplicaSetSeen::default() }
}

struct Case {
    pods: Vec<PodSeen>,
    set: ReplicaSetSeen,
    floor: i32,
    on_deadline: OnMaxDrain,
    counted: bool,
    quiet: Quiet,
}

fn case(pods: Vec<PodSeen>) -> Case {
    let set = set(pods.len() as i32);
    Case { pods, set, floor: 0, on_deadline: OnMaxDrain::Terminate, counted: true, quiet: Quiet::All(at(10)) }
}

impl Case {
    fn at(&self, secs: i64) -> Shrunk {
        let pods: Vec<&PodSeen> = self.pods.iter().collect();
        Shrink {
            now: at(secs),
            set: &self.set,
            pods: &pods,
            floor: self.floor,
            quiet: self.quiet,
            earliest: at(30),
            deadline: at(3600),
            zero_for: Duration::from_secs(30),
            counted: self.counted,
            on_deadline: self.on_deadline,
        }
        .decide()
    }
}

#[test]
fn idle_pods_go_one_by_one_and_those_that_talk_stay() {
    let mut case = case(vec![pod("a", Some(2), 0), pod("b", Some(0), 0), pod("c", None, 0)]);
    let early = case.at(39);
    assert_eq!((early.replicas, early.wake_at), (3, Some(at(40))), "idleness counts from when no call could come");
    let ripe = case.at(40);
    let marks = |s: &Shrunk| s.marks.iter().map(|m| m.mark).collect::<Vec<_>>();
    assert_eq!((marks(&early), marks(&ripe)), (vec![Mark::Busy, Mark::Quiet, Mark::Busy], vec![Mark::Busy, Mark::Idle, Mark::Busy]));
    assert_eq!(ripe.replicas, 2);
    assert!(!ripe.overdue);
    case.pods[0] = pod("a", Some(0), 100);
    case.pods.remove(1);
    case.set = set(2);
    assert_eq!((case.at(129).replicas, case.at(130).replicas), (2, 1), "the one that cannot be read stays");
}

#[test]
fn a_pod_that_is_not_ready_keeps_all_that_talk() {
    let mut case = case(vec![pod("a", Some(2), 0), pod("b", Some(0), 0)]);
    case.pods[0].ready = false;
    assert_eq!(case.at(1000).replicas, 2, "it would go before the idle one, whatever its cost");
    case.pods[0] = PodSeen { ready: false, ..pod("a", Some(0), 900) };
    assert_eq!(case.at(1000).replicas, 0, "all are idle");
}

#[test]
fn costs_have_to_be_read_back_first() {
    let mut case = case(vec![pod("a", Some(2), 0), pod("b", Some(0), 0)]);
    case.pods[0].cost = 0;
    assert_eq!(case.at(1000).replicas, 2);
    case.pods[0].cost = cost(Mark::Busy);
    case.pods[1].cost = cost(Mark::Busy);
    assert_eq!(case.at(1000).replicas, 2, "somebody else wrote costs");
}

#[test]
fn nothing_is_concluded_from_a_cache_that_is_behind() {
    let mut case = case(vec![pod("a", Some(0), 0)]);
    case.set = ReplicaSetSeen { exist: 2, wanted: 2, ..set(2) };
    assert_eq!(case.at(1000).replicas, 2, "a pod that is not seen may talk");
    case.set = ReplicaSetSeen { current: false, ..set(1) };
    assert_eq!(case.at(1000).replicas, 1);
    case.set = set(1);
    assert_eq!(case.at(1000).replicas, 0);
}

#[test]
fn pods_that_never_ran_carry_no_call() {
    let mut case = case(vec![PodSeen { never_ran: true, ready: false, ..pod("a", None, 0) }]);
    assert_eq!(case.at(31).replicas, 0);
    case.pods.push(pod("b", None, 0));
    case.set = set(2);
    assert_eq!(case.at(31).replicas, 2);
}

#[test]
fn at_the_deadline_they_end_or_stay_as_the_spec_says() {
    let mut case = case(vec![pod("a", Some(2), 0), pod("b", None, 0)]);
    assert_eq!((case.at(3599).replicas, case.at(3599).overdue), (2, false));
    assert_eq!((case.at(3600).replicas, case.at(3600).overdue), (0, true));
    case.on_deadline = OnMaxDrain::Keep;
    assert_eq!((case.at(9999).replicas, case.at(9999).overdue), (2, true));
    case.pods = vec![pod("a", Some(0), 9000), pod("b", Some(0), 9000)];
    assert_eq!((case.at(9999).replicas, case.at(9999).overdue), (0, false));
}

#[test]
fn without_a_count_all_stay_until_the_deadline() {
    let mut case = case(vec![pod("a", Some(0), 0)]);
    case.counted = false;
    assert_eq!((case.at(3599).replicas, case.at(3599).wake_at), (1, Some(at(3600))));
    assert_eq!(case.at(3600).replicas, 0);
}

/// Pods are taken out of traffic one by one, and anybody may be chosen from `choose_by` on.
fn out_of_traffic(choose_by: i64) -> Quiet {
    Quiet::Out { spread: Duration::from_secs(5), longest: Duration::from_secs(3600), choose_by: at(choose_by) }
}

/// A revision in traffic with pods that carry these calls, ready, not marked.
fn busy_stable(calls: &[u64], floor: i32) -> Case {
    let names = ["a", "b", "c", "d"];
    let pods: Vec<PodSeen> = calls.iter().zip(names).map(|(n, name)| PodSeen { cost: 0, ..pod(name, Some(*n), 0) }).collect();
    Case { floor, quiet: out_of_traffic(0), ..case(pods) }
}

/// Writes the marks at a time, as they will be read back.
fn write(case: &mut Case, secs: i64, answer: &Shrunk) {
    for pod in &mut case.pods {
        let marked = answer.marks.iter().find(|m| m.name == pod.name).unwrap();
        (pod.mark, pod.cost) = (Some(marked.mark), cost(marked.mark));
        pod.out = marked.out.then(|| pod.out.unwrap_or(at(secs)));
    }
}

fn out(answer: &Shrunk) -> Vec<&str> {
    let mut names: Vec<&str> = answer.marks.iter().filter(|m| m.out).map(|m| m.name.as_str()).collect();
    names.sort_unstable();
    names
}

#[test]
fn pods_in_traffic_are_taken_out_of_it_before_they_may_go() {
    let mut case = busy_stable(&[3, 0, 1, 2], 2);
    let first = case.at(100);
    assert_eq!((out(&first), first.replicas), (vec!["b", "c"], 4), "those with the fewest calls, and none goes yet");
    write(&mut case, 100, &first);
    assert_eq!(case.at(134).replicas, 4, "a call may be on its way to b for 5 s, and after that 30 s have to be quiet");
    let idle = case.at(135);
    write(&mut case, 135, &idle);
    assert_eq!((case.at(136).replicas, out(&case.at(136))), (3, vec!["b", "c"]), "c talks on");
    case.pods.remove(1);
    case.set = set(3);
    assert_eq!((case.at(900).replicas, out(&case.at(900))), (3, vec!["c"]));
    case.pods[1] = PodSeen { idle_since: Some(at(900)), calls: Some(0), ..case.pods[1].clone() };
    let idle = case.at(930);
    write(&mut case, 930, &idle);
    assert_eq!(case.at(930).replicas, 2);
}

#[test]
fn a_pod_out_of_traffic_stays_so_though_others_have_fewer_calls_unless_it_is_needed() {
    let mut case = busy_stable(&[3, 0], 1);
    let first = case.at(100);
    write(&mut case, 100, &first);
    case.pods[0] = PodSeen { calls: Some(0), idle_since: Some(at(50)), ..case.pods[0].clone() };
    assert_eq!(out(&case.at(101)), ["b"]);
    case.pods[0].ready = false;
    assert_eq!((out(&case.at(101)), case.at(101).replicas), (vec!["a"], 2), "b is the only one that answers");
    case.floor = 2;
    assert_eq!(out(&case.at(101)), Vec::<&str>::new());
}

#[test]
fn every_pod_has_its_own_deadline_from_when_it_was_taken_out() {
    let mut case = busy_stable(&[3, 1, 2], 2);
    let first = case.at(100);
    write(&mut case, 100, &first);
    case.floor = 1;
    let second = case.at(3600);
    write(&mut case, 3600, &second);
    assert_eq!((case.at(3699).replicas, out(&case.at(3699))), (3, vec!["b", "c"]));
    let late = case.at(3700);
    assert_eq!((late.replicas, late.overdue, late.late.clone()), (3, true, vec!["b".to_string()]), "they are not told apart yet");
    write(&mut case, 3700, &late);
    assert_eq!(case.at(3700).replicas, 2, "c has talked for 100 s since it was taken out");
    case.on_deadline = OnMaxDrain::Keep;
    let kept = case.at(9999);
    write(&mut case, 9999, &kept);
    assert_eq!((case.at(9999).replicas, case.at(9999).overdue), (3, true));
}

#[test]
fn a_pod_that_is_missing_takes_nobody_elses_place_in_traffic() {
    let mut case = busy_stable(&[3, 1], 1);
    let first = case.at(100);
    write(&mut case, 100, &first);
    case.pods.remove(1);
    assert_eq!((out(&case.at(200)), case.at(200).replicas), (Vec::<&str>::new(), 2), "a is the only one that there is");
}

#[test]
fn pods_that_are_out_stay_out_while_a_smaller_size_takes_effect() {
    let mut case = busy_stable(&[3, 0, 1, 2], 2);
    let first = case.at(100);
    write(&mut case, 100, &first);
    case.set = ReplicaSetSeen { wanted: 3, current: false, ..set(4) };
    assert_eq!(out(&case.at(136)), ["b", "c"], "the one that goes is still there");
}

#[test]
fn nobody_is_chosen_before_calls_are_known_for_a_while() {
    let mut case = busy_stable(&[3, 0], 1);
    case.quiet = out_of_traffic(130);
    for pod in &mut case.pods {
        (pod.calls, pod.idle_since) = (None, None);
    }
    assert_eq!((out(&case.at(100)), case.at(100).wake_at), (Vec::<&str>::new(), Some(at(130))));
    assert_eq!(out(&case.at(130)), ["a"], "they cannot be read");
    case.pods[0].calls = Some(3);
    (case.pods[1].calls, case.pods[1].idle_since) = (Some(0), Some(at(101)));
    assert_eq!(out(&case.at(101)), ["b"]);
}

#[test]
fn a_pod_that_somebody_took_out_of_traffic_gets_a_time_or_comes_back() {
    let pod = PodSeen { out: Some(Timestamp::MAX), ..pod("a", Some(0), 0) };
    let written = |out: bool| Some(Intent::MarkPod { name: "a".into(), mark: None, out });
    assert_eq!((remark(&pod, None, true), remark(&pod, None, false)), (written(true), written(false)));
    let known = PodSeen { out: Some(at(5)), ..pod };
    assert_eq!((remark(&known, None, true), remark(&known, None, false)), (None, written(false)));
}

#[test]
fn a_set_that_only_gets_smaller_keeps_its_floor() {
    let mut case = case(vec![pod("a", Some(2), 0), pod("b", Some(0), 0), pod("c", Some(0), 0), pod("d", Some(0), 0)]);
    case.floor = 2;
    assert_eq!(case.at(1000).replicas, 2);
    case.pods[1] = pod("b", Some(1), 0);
    case.pods[2] = pod("c", Some(1), 0);
    assert_eq!(case.at(1000).replicas, 3, "all that talk stay");
    case.set = set(2);
    case.pods.truncate(2);
    assert_eq!((case.at(1000).replicas, case.at(1000).wake_at), (2, None), "small enough");
}
