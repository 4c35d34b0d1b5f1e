//! Which form of request a server takes. Found out by being refused, which costs nothing, and remembered.

use std::collections::HashMap;

use parking_lot::Mutex;

/// How the answer's form is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// By a JSON schema that the server keeps the model to.
    Schema,
    /// By the promise of some JSON object.
    Object,
    /// By the instructions alone.
    Text,
}

/// How one model of one server wants to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Dialect {
    /// Form of the answer.
    pub(super) form: Form,
    /// The limit of the answer has its older name, `max_tokens`.
    pub(super) old_limit: bool,
}

impl Dialect {
    /// What is tried first.
    pub(super) const FIRST: Self = Self { form: Form::Schema, old_limit: false };

    /// A suffix for the idempotency key: another request must not come under the key of the one that was refused.
    pub(super) fn suffix(self) -> &'static str {
        match (self.form, self.old_limit) {
            (Form::Schema, false) => "",
            (Form::Object, false) => "-object",
            (Form::Text, false) => "-text",
            (Form::Schema, true) => "-limit",
            (Form::Object, true) => "-object-limit",
            (Form::Text, true) => "-text-limit",
        }
    }
}

/// What a server that refused a request did not understand, as far as its words show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The form of the answer.
    Form,
    /// The name of the answer's limit.
    Limit,
    /// Something else, or it did not refuse.
    Other,
}

/// Reads the words of a 400 or 422. They are looked at, and never shown.
pub(super) fn refused(status: u16, body: &[u8]) -> Refused {
    if !matches!(status, 400 | 422) {
        return Refused::Other;
    }
    let words = String::from_utf8_lossy(body).to_ascii_lowercase();
    let has = |list: &[&str]| list.iter().any(|w| words.contains(w));
    if has(&["max_completion_tokens"]) {
        Refused::Limit
    } else if has(&["response_format", "json_schema", "json_object", "output_config", "output_format", "structured", "schema", "grammar"]) {
        Refused::Form
    } else {
        Refused::Other
    }
}

/// Servers and models that are remembered; beyond it everything is found out anew.
const MAX_KNOWN: usize = 256;

/// What this process has found out, by server and model.
#[derive(Default)]
pub(in crate::sources) struct Dialects(Mutex<HashMap<(String, String), Dialect>>);

impl Dialects {
    pub(super) fn of(&self, server: &str, model: &str) -> Dialect {
        self.0.lock().get(&(server.to_owned(), model.to_owned())).copied().unwrap_or(Dialect::FIRST)
    }

    pub(super) fn remember(&self, server: &str, model: &str, dialect: Dialect) {
        let mut known = self.0.lock();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert((server.to_owned(), model.to_owned()), dialect);
    }
}
