//! Decisions. Pure: no async, no I/O, no clock; `now` is an argument.

pub mod args;
pub mod condition;
pub mod drain;
pub mod gates;
pub mod intent;
pub mod judge;
pub mod live;
pub mod machine;
pub mod managed;
pub mod notify;
pub mod observe;
pub mod plan;
pub mod preflight;
pub mod proof;
pub mod request;
pub mod resolve;
pub mod revision;
pub mod rollback;
pub mod route;
pub mod spans;
pub mod stats;
pub mod window;
pub mod workers;

/// Something wrong in a resource: where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpecError {
    /// Path of the field from the object's root, `spec.steps[2].analysis.gates[0].threshold.successCondition`.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a mistake is, if not in the field that is named.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// In the field.
    #[default]
    Field,
    /// The field names a template that is not there.
    NoTemplate,
    /// In a template that the field names.
    Template(Box<InTemplate>),
}

/// A mistake in a template.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InTemplate {
    /// Kind of the template.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Path of the field there.
    pub path: String,
    /// What is wrong there.
    pub message: String,
}

impl SpecError {
    /// Makes one.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), origin: Origin::Field }
    }

    /// The same mistake, from elsewhere.
    pub fn from(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }
}

impl std::fmt::Display for SpecError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}
