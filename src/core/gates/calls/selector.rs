//! Selectors of series, as users write them, narrowed down to the two revisions.

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{Expr, VectorSelector};

/// A selector of series without time.
#[derive(Clone, Debug)]
pub struct Selector(VectorSelector);

/// Label and values that tell the arms apart.
#[derive(Clone, Copy, Debug)]
pub struct Arms<'a> {
    /// The label.
    pub label: &'a str,
    /// Hash of the canary.
    pub canary: &'a str,
    /// Hash of stable; `None` when only the canary is looked at.
    pub stable: Option<&'a str>,
}

impl Selector {
    /// Parses `name{label="value"}`.
    ///
    /// # Errors
    /// Anything else, and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        crate::core::window::longest(text, "").map_err(|e| e.message)?;
        let Ok(Expr::VectorSelector(selector)) = promql_parser::parser::parse(text) else {
            return Err("has to be a plain selector such as voice_calls_ended_total{tier=\"gold\"}: counters are read as they are, without rate() or sum()".into());
        };
        if selector.offset.is_some() || selector.at.is_some() {
            return Err("has no offset and no @: both arms are read at the same moment".into());
        }
        if !selector.matchers.or_matchers.is_empty() {
            return Err("has no `or` between its matchers".into());
        }
        Ok(Self(selector))
    }

    /// Name of the metric, where it is written as one.
    pub fn name(&self) -> &str {
        self.0.name.as_deref().unwrap_or_default()
    }

    /// Whether it names this label.
    pub fn names(&self, label: &str) -> bool {
        self.0.matchers.matchers.iter().any(|m| m.name == label)
    }

    /// The selector as PromQL.
    pub fn plain(&self) -> String {
        self.with(&[])
    }

    /// The selector of both arms' series alone.
    pub fn of_arms(&self, arms: &Arms<'_>) -> String {
        self.with(&[arms.matcher()])
    }

    /// The same, with the values of `le` that are wanted.
    pub fn of_buckets(&self, arms: &Arms<'_>, le: &[&str]) -> String {
        let values: Vec<String> = le.iter().map(|v| regex::escape(v)).collect();
        self.with(&[arms.matcher(), format!("le=~{}", quoted(&values.join("|")))])
    }

    fn with(&self, more: &[String]) -> String {
        let own = self.0.matchers.matchers.iter().map(written);
        let all: Vec<String> = own.chain(more.iter().cloned()).collect();
        if all.is_empty() { self.name().to_owned() } else { format!("{}{{{}}}", self.name(), all.join(",")) }
    }
}

impl Arms<'_> {
    fn matcher(&self) -> String {
        let values: Vec<String> = std::iter::once(self.canary).chain(self.stable).map(regex::escape).collect();
        format!("{}=~{}", self.label, quoted(&values.join("|")))
    }
}

fn written(matcher: &Matcher) -> String {
    let op = match matcher.op {
        MatchOp::Equal => "=",
        MatchOp::NotEqual => "!=",
        MatchOp::Re(_) => "=~",
        MatchOp::NotRe(_) => "!~",
    };
    format!("{}{op}{}", matcher.name, quoted(&matcher.value))
}

/// A PromQL string. Its escapes are Go's, and JSON's are among them.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
