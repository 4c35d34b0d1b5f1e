//! Spans in OTLP JSON, in the forms that Tempo and Jaeger answer with. Of attributes only the one that holds the revision
//! is looked at, so that what others put into a trace, `lk.pii.*` among it, goes no further than this.

use std::collections::HashSet;

use serde::Deserialize;

use crate::core::judge::traces::Span as Found;

/// Longest name of a span that is kept, in bytes.
const MAX_NAME: usize = 200;

/// `{"resourceSpans": [...]}`; Tempo calls it `batches`.
#[derive(Deserialize)]
pub(super) struct Traces {
    #[serde(rename = "resourceSpans", alias = "batches")]
    resources: Option<Vec<Resource>>,
}

#[derive(Deserialize)]
struct Resource {
    resource: Option<Attributes>,
    #[serde(rename = "scopeSpans", alias = "instrumentationLibrarySpans")]
    scopes: Option<Vec<Scope>>,
}

#[derive(Deserialize)]
struct Attributes {
    attributes: Option<Vec<Attribute>>,
}

#[derive(Deserialize)]
struct Scope {
    spans: Option<Vec<Span>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Span {
    #[serde(default)]
    trace_id: String,
    #[serde(default)]
    span_id: String,
    #[serde(default)]
    parent_span_id: String,
    #[serde(default)]
    name: String,
    start_time_unix_nano: Option<Nanos>,
    end_time_unix_nano: Option<Nanos>,
    attributes: Option<Vec<Attribute>>,
    status: Option<Status>,
}

#[derive(Deserialize)]
struct Attribute {
    #[serde(default)]
    key: String,
    value: Option<Text>,
}

#[derive(Deserialize)]
struct Text {
    #[serde(rename = "stringValue")]
    text: Option<String>,
}

#[derive(Deserialize)]
struct Status {
    code: Option<Code>,
}

impl Traces {
    /// There is a list, be it empty.
    pub(super) fn lists(&self) -> bool {
        self.resources.is_some()
    }
}

/// 64-bit numbers are text in OTLP JSON; some write numbers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Nanos {
    Number(u64),
    Text(String),
}

/// Enumerations are numbers in OTLP JSON, and names in that of protocol buffers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Code {
    Number(i64),
    Name(String),
}

impl Nanos {
    fn value(&self) -> Option<u64> {
        match self {
            Self::Number(n) => Some(*n),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

impl Code {
    fn is_error(&self) -> bool {
        match self {
            Self::Number(n) => *n == 2,
            Self::Name(name) => name == "STATUS_CODE_ERROR",
        }
    }
}

/// Spans by trace, of those traces in which something belongs to a revision.
pub(super) struct Reader<'a> {
    attribute: &'a str,
    revision: &'a str,
    spans: Vec<Found>,
    /// Traces with a resource or a span of the revision.
    own: HashSet<String>,
}

impl<'a> Reader<'a> {
    /// Takes traces in which `attribute` is `revision` somewhere.
    pub(super) fn new(attribute: &'a str, revision: &'a str) -> Self {
        Self { attribute, revision, spans: Vec::new(), own: HashSet::new() }
    }

    /// Takes spans in; false when there is no list of them, or one that is not understood.
    pub(super) fn take(&mut self, traces: Traces) -> bool {
        let Some(resources) = traces.resources else { return false };
        for resource in resources {
            let mine = self.is_mine(resource.resource.and_then(|r| r.attributes).as_deref());
            let spans = resource.scopes.into_iter().flatten().filter_map(|s| s.spans).flatten();
            for span in spans {
                let (start, end) = (time(span.start_time_unix_nano.as_ref()), time(span.end_time_unix_nano.as_ref()));
                let (Some(start), Some(end), false) = (start, end, span.trace_id.is_empty()) else { return false };
                if mine || self.is_mine(span.attributes.as_deref()) {
                    self.own.insert(span.trace_id.clone());
                }
                self.spans.push(Found {
                    trace: span.trace_id,
                    id: span.span_id,
                    parent: span.parent_span_id,
                    name: crate::core::judge::templates::clip(&span.name, MAX_NAME).to_owned(),
                    start,
                    end,
                    failed: span.status.and_then(|s| s.code).is_some_and(|c| c.is_error()),
                });
            }
        }
        true
    }

    fn is_mine(&self, attributes: Option<&[Attribute]>) -> bool {
        let has = |a: &Attribute| a.key == self.attribute && a.value.as_ref().is_some_and(|v| v.text.as_deref() == Some(self.revision));
        attributes.is_some_and(|all| all.iter().any(has))
    }

    /// Spans of at most `most` traces of the revision, the ones whose ids come first; and how many traces were left out.
    pub(super) fn finish(self, most: usize) -> (Vec<Found>, usize) {
        let mut own: Vec<String> = self.own.into_iter().collect();
        own.sort();
        let left_out = own.len().saturating_sub(most);
        own.truncate(most);
        let kept: HashSet<String> = own.into_iter().collect();
        (self.spans.into_iter().filter(|s| kept.contains(&s.trace)).collect(), left_out)
    }
}

/// A time; left out is 0, as in protocol buffers.
fn time(nanos: Option<&Nanos>) -> Option<u64> {
    nanos.map_or(Some(0), Nanos::value)
}
