//! The invariants in their words, as the API server's objects and the ends of pods show them.
//!
//! Not here: I10, since nothing in this release reads a Secret (the providers' tests have it).

use jiff::SignedDuration;
use serde_json::{Value, json};
use voicerollout::sim::Written;
use voicerollout::sim::world::{Cause, PodEnd};

use super::Timestamp;
use super::watchman::{Asked, Watch};

const REVISION: &str = "/metadata/labels/voicerollout.dev~1revision";
const SERVING: &str = "/metadata/labels/voicerollout.dev~1serving";
const MINUTE: SignedDuration = SignedDuration::from_secs(60);

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

fn time(object: &Value, pointer: &str) -> Option<Timestamp> {
    text(object, pointer).parse().ok()
}

fn there(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer).is_some_and(|v| !v.is_null())
}

fn ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Weights of the managed route: stable and canary.
fn weights(route: &Value) -> (i64, i64) {
    (number(route, "/spec/http/0/route/0/weight"), number(route, "/spec/http/0/route/1/weight"))
}

/// A VirtualService without what the operator may write.
fn others(route: &Value) -> Value {
    let mut rest = json!({"spec": route["spec"], "labels": route["metadata"]["labels"], "annotations": route["metadata"]["annotations"]});
    for i in 0..2 {
        if let Some(entry) = rest.pointer_mut(&format!("/spec/http/0/route/{i}")) {
            entry["weight"] = Value::Null;
        }
    }
    rest
}

/// The most that the canary may get, from the words of spec and status.
fn allowed(rollout: &Value) -> i64 {
    let status = &rollout["status"];
    let release = status["stableRevision"] != status["canaryRevision"] && there(status, "/stableRevision");
    if there(status, "/abort") {
        return 0;
    }
    if there(status, "/promotion") {
        return if text(status, "/promotion/grounds") == "First" { 0 } else { 100 };
    }
    if !release {
        return 0;
    }
    let reached = usize::try_from(number(status, "/currentStep")).unwrap_or(0) + 1;
    let steps = rollout["spec"]["steps"].as_array().into_iter().flatten().take(reached);
    steps.filter_map(|s| s["setWeight"].as_i64()).last().unwrap_or(0)
}

fn revision<'a>(rollout: &'a Value, hash: &str) -> &'a Value {
    static NONE: Value = Value::Null;
    let all = rollout["status"]["revisions"].as_array();
    all.into_iter().flatten().find(|r| r["hash"] == hash).unwrap_or(&NONE)
}

impl Watch {
    /// I1 The weights of a managed route sum to 100, each in 0..=100.
    /// I2 Canary weight never exceeds what the current step allows.
    /// I3 Once an abort is decided, canary weight never rises until a new revision or an explicit retry.
    /// I11 Only the weights of the named http routes and the routes we own are written.
    pub(super) fn check_route(&mut self, change: &Written) -> Vec<String> {
        let (Some(old), Some(new)) = (&change.old, &change.new) else { return Vec::new() };
        if old["metadata"]["annotations"] != new["metadata"]["annotations"] {
            // One of another field moves no call, and excuses nothing.
            if weights(old) != weights(new) {
                self.edits.push(self.now());
                self.reverted = None;
            }
            return Vec::new();
        }
        let mut wrong = Vec::new();
        if weights(old) != weights(new) {
            self.reverted = Some(self.now());
        }
        let ((_, before), (stable, canary)) = (weights(old), weights(new));
        if stable + canary != 100 || !(0..=100).contains(&canary) {
            wrong.push(format!("I1: weights {stable} and {canary}"));
        }
        let most = allowed(self.rollout());
        if canary > before && canary > most {
            let status = &self.rollout()["status"];
            let aborted = if there(status, "/abort") { "I3" } else { "I2" };
            wrong.push(format!("{aborted}: raised from {before} to {canary} where {most} is allowed: {status}"));
        }
        if others(old) != others(new) {
            wrong.push(format!("I11: {} became {}", others(old), others(new)));
        }
        wrong
    }

    /// I3, I4, I8 and I12 in what the status says.
    pub(super) fn check_rollout(&mut self, change: &Written) -> Vec<String> {
        let (Some(old), Some(new)) = (&change.old, &change.new) else { return Vec::new() };
        let size = number(new, "/spec/replicas");
        if size != number(old, "/spec/replicas") || self.sizes.is_empty() {
            let now = self.now();
            self.sizes.push((now, size));
        }
        let mut wrong = Vec::new();
        if old["status"] == new["status"] {
            return wrong;
        }
        let (b, a) = (&old["status"], &new["status"]);
        wrong.extend(self.abort_ends_rightly(b, a));
        wrong.extend(self.steps_pass_on_evidence(new, b, a));
        wrong.extend(stable_has_grounds(b, a));
        if a["runs"].as_array().into_iter().flatten().any(|r| text(r, "/name").contains("forged")) {
            wrong.push(format!("I12: a run that nobody asked for counts: {}", a["runs"]));
        }
        wrong
    }

    /// I3: an abort ends with a new revision or a retry. I12: and begins with a person's word, since every gate passes.
    fn abort_ends_rightly(&self, b: &Value, a: &Value) -> Option<String> {
        let retried = number(a, "/attempt") > number(b, "/attempt") && self.said_lately("retry");
        if there(b, "/abort") && !there(a, "/abort") && a["canaryRevision"] == b["canaryRevision"] && !retried {
            return Some(format!("I3: an abort ended by itself: {}", b["abort"]));
        }
        let by_hand = text(a, "/abort/by") == "ada" && self.said.iter().any(|(_, verb)| verb == "abort");
        (there(a, "/abort") && !by_hand).then(|| format!("I12: aborted, though every gate passes and nobody asked: {}", a["abort"]))
    }

    /// Within the time that a command may need to be heard.
    fn said_lately(&self, verb: &str) -> bool {
        self.said.iter().any(|(at, said)| said == verb && self.now().duration_since(*at) < MINUTE * 60)
    }

    /// I4 No analysis passes without evidence; and I2: the weight is raised only by a step reached through passed steps.
    fn steps_pass_on_evidence(&self, rollout: &Value, b: &Value, a: &Value) -> Option<String> {
        let same = ["canaryRevision", "attempt", "stepsHash", "stableRevision"].iter().all(|f| b[*f] == a[*f]);
        let steps = rollout["spec"]["steps"].as_array()?;
        if !same || !there(b, "/currentStep") || there(b, "/promotion") {
            return None;
        }
        let done = text(a, "/promotion/grounds") == "StepsPassed";
        let to = if done { steps.len() as i64 } else { number(a, "/currentStep") };
        for index in number(b, "/currentStep")..to {
            let step = &steps[usize::try_from(index).ok()?];
            if let Err(why) = self.step_passed(step, index, b, a) {
                return Some(format!("I2, I4: step {index} {step} passed: {why}"));
            }
        }
        None
    }

    fn step_passed(&self, step: &Value, index: i64, b: &Value, a: &Value) -> Result<(), String> {
        let ensure = |holds: bool, what: String| if holds { Ok(()) } else { Err(what) };
        if let Some(weight) = step["setWeight"].as_i64() {
            let is = weights(self.object("virtualservices", "agent")).1;
            // Somebody may have edited the route while the status was on its way.
            let edited = self.edits.last().is_some_and(|at| self.now().duration_since(*at) < MINUTE);
            return ensure(is == weight || edited, format!("the route says {is}"));
        }
        if there(step, "/pause") {
            let promoted = self.said_lately("promote");
            let began = time(b, "/step/startedAt").ok_or("it never began")?;
            let hours = text(step, "/pause/duration").strip_suffix('h').and_then(|h| h.parse::<i64>().ok());
            let waited = self.now().duration_since(began);
            let over = hours.is_some_and(|h| waited >= MINUTE * 60 * h as i32 - SignedDuration::from_secs(1));
            return ensure(promoted || over && number(b, "/currentStep") == index, format!("after {waited:?}, and nobody said promote"));
        }
        let runs = a["runs"].as_array().into_iter().flatten();
        let kinds = [("Step", "/analysis/gates"), ("Background", "/analysis/require")];
        for (kind, _) in kinds.into_iter().filter(|(_, field)| there(step, field)) {
            let mut all = runs.clone().filter(|r| text(r, "/kind") == kind && (kind != "Step" || r["step"] == index));
            let record = all.next().ok_or_else(|| format!("no run of kind {kind}"))?;
            let run = self.object("voiceanalysisruns", text(record, "/name"));
            let gates = run["status"]["gates"].as_array().cloned().unwrap_or_default();
            let passed = |g: &Value| {
                number(g, "/counts/pass") > 0 && (text(g, "/verdict") == "Pass" || kind == "Background" && g["passing"] == true)
            };
            let right = text(run, "/spec/revision") == text(a, "/canaryRevision") && run["spec"]["attempt"] == a["attempt"];
            ensure(!gates.is_empty() && gates.iter().all(passed) && right || self.said_lately("promote"), format!("{kind} run {run}"))?;
        }
        Ok(())
    }

    /// I5 Stable keeps its full replica count until the promotion is complete. A size that was asked for in this minute may
    /// not have been seen yet.
    pub(super) fn check_set(&mut self, change: &Written) -> Vec<String> {
        let Some(new) = &change.new else { return self.check_deleted_set(change) };
        let Some(old) = &change.old else { return Vec::new() };
        let (before, after) = (number(old, "/spec/replicas"), number(new, "/spec/replicas"));
        let hash = text(new, REVISION);
        if before == after || text(self.rollout(), "/status/stableRevision") != hash {
            return Vec::new();
        }
        let least = self.least_size();
        if after >= least { Vec::new() } else { vec![format!("I5: stable {hash} from {before} to {after} where {least} are asked for")] }
    }

    /// The least size that was asked for in this minute.
    fn least_size(&self) -> i64 {
        let now = self.now();
        let lately = self.sizes.iter().rev().take_while(|(at, _)| now.duration_since(*at) < MINUTE).count();
        self.sizes.iter().rev().take(lately + 1).map(|(_, n)| *n).min().unwrap_or(0)
    }

    fn check_deleted_set(&self, change: &Written) -> Vec<String> {
        let hash = change.old.as_ref().map(|o| text(o, REVISION).to_owned()).unwrap_or_default();
        let stable = text(self.rollout(), "/status/stableRevision") == hash;
        if stable { vec![format!("I5: the ReplicaSet of stable {hash} was deleted")] } else { Vec::new() }
    }

    /// I5 As many pods of stable as are asked for get new calls, of those that can.
    fn check_label(&self, change: &Written, old: &Value, new: &Value) -> Vec<String> {
        let hash = text(new, REVISION);
        let taken_out = text(old, SERVING) == "true" && text(new, SERVING) == "false" && ready(new);
        if !taken_out || text(self.rollout(), "/status/stableRevision") != hash {
            return Vec::new();
        }
        let of_stable = || self.all("pods").filter(|(_, pod)| text(pod, REVISION) == hash && !there(pod, "/metadata/deletionTimestamp"));
        let serving = of_stable().filter(|(name, pod)| *name != change.name && ready(pod) && text(pod, SERVING) == "true").count();
        let least = usize::try_from(self.least_size()).unwrap_or(0);
        let enough = serving >= least.min(of_stable().filter(|(_, pod)| ready(pod)).count());
        if enough { Vec::new() } else { vec![format!("I5: {} goes out of traffic, and {serving} of {least} are left", change.name)] }
    }

    /// What holds at the moment in which a pod is asked to end; and before, in which it is taken out of traffic.
    pub(super) fn check_pod(&mut self, change: &Written) -> Vec<String> {
        let (Some(old), Some(new)) = (&change.old, &change.new) else { return Vec::new() };
        if there(old, "/metadata/deletionTimestamp") || !there(new, "/metadata/deletionTimestamp") {
            return self.check_label(change, old, new);
        }
        let hash = text(new, REVISION);
        let record = revision(self.rollout(), hash);
        let longest = SignedDuration::try_from(self.settings.max_drain).expect("short");
        // Of a revision in traffic each pod for itself, since it was taken out.
        let out = (text(new, SERVING) == "false").then(|| time(new, "/metadata/annotations/voicerollout.dev~1out-of-traffic-since"));
        let since = time(record, "/retiredAt").or(out.flatten());
        // Recorded times are whole seconds.
        let late = since.is_some_and(|at| self.now().duration_since(at) >= longest - SignedDuration::from_secs(1));
        let ran = new["status"]["containerStatuses"].as_array().is_some_and(|all| !all.is_empty());
        // Two readings and what is under way: then a failure has been noticed.
        let deaf =
            self.silence.as_ref().is_some_and(|(part, since)| change.name.contains(part) && self.now().duration_since(*since) > MINUTE * 5);
        let asked = Asked {
            late: late && self.settings.on_max_drain == "Terminate",
            unread: deaf && ran,
            in_traffic: text(self.rollout(), "/status/stableRevision") == hash && text(new, SERVING) == "true",
            record: format!("{record}, pod {} {}", new["metadata"]["labels"], new["metadata"]["annotations"]),
        };
        self.asked.insert(change.name.clone(), asked);
        Vec::new()
    }

    /// I6 A pod with live calls, or whose live calls cannot be read, is not removed before `drain.maxDrain`.
    pub(super) fn check_end(&mut self, end: &PodEnd) -> Vec<String> {
        let asked = self.asked.remove(&end.pod).unwrap_or_default();
        if end.cause == Cause::Surplus && asked.in_traffic {
            return vec![format!("I6: {end:?} of stable was not taken out of traffic before: {}", asked.record)];
        }
        if !matches!(end.cause, Cause::Surplus | Cause::Deleted) || asked.late {
            return Vec::new();
        }
        // Somebody sent calls where the operator does not want any.
        if self.is_excused(end.at) {
            return Vec::new();
        }
        let mut wrong = Vec::new();
        if end.calls > 0 || end.cut > 0 {
            wrong.push(format!("I6: {end:?} by the operator: {}", asked.record));
        }
        if asked.unread {
            wrong.push(format!("I6: {end:?}, whose calls could not be read, by the operator: {}", asked.record));
        }
        wrong
    }

    /// The route says what somebody else has written, or did in these two minutes.
    pub(super) fn is_excused(&self, at: Timestamp) -> bool {
        let edited = self.edits.iter().rev().find(|e| **e <= at);
        edited.is_some_and(|e| match self.reverted {
            Some(reverted) if reverted > *e => at.duration_since(reverted) < MINUTE * 2,
            _ => true,
        } || at.duration_since(*e) < MINUTE * 2)
    }

    /// Every call that found nobody was meant for a pod that was lost a moment before, or sent there by somebody else.
    pub(super) fn check_violation(&self, at: Timestamp, what: &str) -> Option<String> {
        let near = |t: &Timestamp| (SignedDuration::ZERO..MINUTE * 2).contains(&at.duration_since(*t));
        let explained = self.accidents.iter().rev().any(near) || self.is_excused(at);
        (!explained).then(|| format!("at {at} a call found nobody: {what}"))
    }

    /// I4 No analysis passes without evidence.
    pub(super) fn check_run(&self, change: &Written) -> Vec<String> {
        let Some(new) = change.new.as_ref().filter(|_| !change.name.contains("forged")) else { return Vec::new() };
        let gates = new["status"]["gates"].as_array();
        let bare = gates.into_iter().flatten().find(|g| text(g, "/verdict") == "Pass" && number(g, "/counts/pass") == 0);
        bare.map(|g| format!("I4: {} passed without a measurement: {g}", change.name)).into_iter().collect()
    }
}

/// I8 A revision becomes stable only if every step passed or a person said so; the record says which.
fn stable_has_grounds(b: &Value, a: &Value) -> Option<String> {
    if b["stableRevision"] == a["stableRevision"] || !there(b, "/stableRevision") {
        return None;
    }
    let new = &a["stableRevision"];
    let granted = b["promotion"]["revision"] == *new && !there(b, "/abort");
    let grounds = ["StepsPassed", "RollbackWindow", "PromotedFull"].contains(&text(b, "/promotion/grounds"));
    let said = a["decisions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|d| d["revision"] == *new && ["Promoted", "RolledBack"].contains(&text(d, "/decision")));
    (!(granted && grounds && said)).then(|| format!("I8: {new} became stable, promotion was {}", b["promotion"]))
}
