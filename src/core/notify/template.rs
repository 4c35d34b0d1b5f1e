//! The text of a message: a minijinja template over its facts. Pure, and bounded in time and size.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};

use crate::api::notification::Trigger;
use crate::api::outbox::Facts;

/// Longest text of a message, in characters.
pub const MAX_TEXT: usize = 3000;
/// Work that one message may take: about so many instructions, or 64 bytes of text each.
const FUEL: u64 = 20_000;

/// Names of the variables.
pub const VARIABLES: [&str; 13] = [
    "trigger",
    "namespace",
    "rollout",
    "revision",
    "stable_revision",
    "step",
    "weight",
    "gate",
    "failure_reason",
    "by",
    "at",
    "link",
    "decision",
];

/// How values are written into the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// As they are.
    None,
    /// `&`, `<` and `>` as entities: a value can make no link, no mention and no channel of Slack.
    Slack,
}

/// The values of the variables. Each is there: what is not known is empty.
fn values(facts: &Facts, link: &str) -> BTreeMap<&'static str, Value> {
    let weight = facts.weight.map_or_else(|| Value::from(""), Value::from);
    let text = |text: &str| Value::from(text);
    BTreeMap::from([
        ("trigger", text(facts.trigger.name())),
        ("namespace", text(&facts.namespace)),
        ("rollout", text(&facts.rollout)),
        ("revision", text(&facts.revision)),
        ("stable_revision", text(&facts.stable_revision)),
        ("step", text(&facts.step)),
        ("weight", weight),
        ("gate", text(&facts.gate)),
        ("failure_reason", text(&facts.failure_reason)),
        ("by", text(&facts.by)),
        ("at", Value::from(facts.at.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())),
        ("link", text(link)),
        ("decision", text(&facts.decision)),
    ])
}

/// The usual sentence about a trigger.
pub fn usual(trigger: Trigger) -> &'static str {
    match trigger {
        Trigger::Started => {
            "{{ namespace }}/{{ rollout }}: revision {{ revision }} is on its way{% if failure_reason %}: {{ failure_reason }}{% endif %}.{% if link %} {{ link }}{% endif %}"
        }
        Trigger::StepPassed => {
            "{{ namespace }}/{{ rollout }}: step {{ step }} passed, {{ weight }} % of new calls go to revision {{ revision }}.{% if link %} {{ link }}{% endif %}"
        }
        Trigger::Paused => {
            "{{ namespace }}/{{ rollout }}: the release of revision {{ revision }} stands at step {{ step }} with {{ weight }} % of new calls{% if by %}, paused by {{ by }}{% endif %}{% if failure_reason %}: {{ failure_reason }}{% endif %}.{% if link %} {{ link }}{% endif %}"
        }
        Trigger::GateFailing => {
            "{{ namespace }}/{{ rollout }}: gate {{ gate }} is failing at step {{ step }}, with {{ weight }} % of new calls on revision {{ revision }}{% if failure_reason %}: {{ failure_reason }}{% endif %}.{% if link %} {{ link }}{% endif %}"
        }
        Trigger::Aborted => {
            "{{ namespace }}/{{ rollout }}: revision {{ revision }} was aborted{% if step %} at step {{ step }}{% endif %}{% if by %} by {{ by }}{% endif %}, new calls go back to {{ stable_revision }}: {{ failure_reason }}.{% if link %} {{ link }}{% endif %}"
        }
        Trigger::Promoted => "{{ namespace }}/{{ rollout }}: {{ failure_reason }}.{% if link %} {{ link }}{% endif %}",
        Trigger::DrainOverdue | Trigger::Drift => "{{ namespace }}/{{ rollout }}: {{ failure_reason }}.{% if link %} {{ link }}{% endif %}",
    }
}

/// The text of a message: control characters taken out, at most [`MAX_TEXT`] characters, which never end within an entity.
///
/// # Errors
/// What is wrong with the template, with the line.
pub fn render(template: &str, facts: &Facts, link: &str, escape: Escape) -> Result<String, String> {
    let environment = environment(escape);
    let template = environment.template_from_str(template).map_err(|e| told(&e))?;
    let text = template.render(values(facts, link)).map_err(|e| told(&e))?;
    let text: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
    let text = text.trim();
    if text.is_empty() {
        return Err(format!("it gives no text for {}", facts.trigger));
    }
    Ok(shortened(text))
}

/// Whether a template can be used for these triggers: it is parsed, its variables exist, and it gives a text for each.
///
/// # Errors
/// What is wrong with it, with the line.
pub fn check(template: &str, on: &BTreeSet<Trigger>) -> Result<(), String> {
    let environment = environment(Escape::None);
    let parsed = environment.template_from_str(template).map_err(|e| told(&e))?;
    let used: BTreeSet<String> = parsed.undeclared_variables(false).into_iter().collect();
    let known = |name: &str| VARIABLES.contains(&name) || environment.globals().any(|(global, _)| global == name);
    if let Some(name) = used.iter().find(|name| !known(name)) {
        let near =
            VARIABLES.iter().filter(|v| strsim::damerau_levenshtein(v, name) <= 3).min_by_key(|v| strsim::damerau_levenshtein(v, name));
        let hint = near.map_or_else(|| format!("they are {}", VARIABLES.join(", ")), |near| format!("did you mean {near}?"));
        return Err(format!("there is no variable {name}; {hint}"));
    }
    for trigger in on {
        render(template, &sample(*trigger), "https://example.test", Escape::None)?;
    }
    Ok(())
}

fn environment<'t>(escape: Escape) -> Environment<'t> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    // Every value, also one that a filter has called safe: reasons hold what judges and agents said.
    environment.set_formatter(move |out, _, value| {
        let text = value.to_string();
        let text = if escape == Escape::Slack { escaped(&text) } else { text };
        out.write_str(&text).map_err(|_| minijinja::Error::new(minijinja::ErrorKind::WriteFailure, "the text is too long"))
    });
    environment
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= MAX_TEXT {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(MAX_TEXT - 1).collect();
    // Half an entity would be shown as it is written; half a link as text.
    if let Some(start) = cut.rfind('&').filter(|start| cut.len() - start <= 5 && !cut[*start..].contains(';')) {
        cut.truncate(start);
    }
    format!("{}…", cut.trim_end())
}

/// Line and cause, without the template's own text.
fn told(error: &minijinja::Error) -> String {
    let mut text = error.kind().to_string();
    if let Some(detail) = error.detail() {
        text = format!("{text}: {detail}");
    }
    match error.line() {
        Some(line) => format!("line {line}: {text}"),
        None => text,
    }
}

fn sample(trigger: Trigger) -> Facts {
    let text = |text: &str| text.to_owned();
    Facts {
        trigger,
        namespace: text("voice"),
        rollout: text("agent"),
        revision: text("0000000000"),
        stable_revision: text("1111111111"),
        step: text("1/2"),
        weight: Some(5),
        gate: text("gate"),
        failure_reason: text("why"),
        by: text("ada"),
        at: k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(jiff::Timestamp::UNIX_EPOCH),
        decision: text("Aborted"),
    }
}
