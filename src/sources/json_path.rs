//! JSONPath of the web provider: RFC 9535, and kubectl's `{.field}` around it.

use jsonpath_rust::parser::model::{JpQuery, Segment, Selector};
use jsonpath_rust::parser::parse_json_path;
use jsonpath_rust::query::{QueryRef, js_path_process};
use serde_json::Value;

/// A JSONPath that has been parsed.
#[derive(Debug)]
pub struct JsonPath {
    text: String,
    query: JpQuery,
}

impl JsonPath {
    /// Parses `{$.passRate}`, `{.passRate}`, `$.passRate` or `.passRate`.
    ///
    /// # Errors
    /// One sentence that says what is wrong with the path.
    pub fn parse(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        let inner = match (trimmed.strip_prefix('{'), trimmed.strip_suffix('}')) {
            (Some(_), Some(_)) if trimmed.len() >= 2 => trimmed[1..trimmed.len() - 1].trim(),
            (None, None) => trimmed,
            _ => return Err(format!("{text:?} has one brace without the other")),
        };
        let path = match inner.chars().next() {
            Some('$') => inner.to_owned(),
            Some('.' | '[') => format!("${inner}"),
            _ => return Err(format!("{text:?} does not begin with $; write {{$.field}}")),
        };
        match parse_json_path(&path) {
            Ok(query) => Ok(Self { text: text.to_owned(), query }),
            Err(_) => Err(format!("{text:?} is not a valid JSONPath; write {{$.field}}, {{$.list[0].field}} or {{$['odd-name']}}")),
        }
    }

    /// Whether it can find one value only: it has names and indexes, no `*`, `..`, filter or slice.
    pub fn is_singular(&self) -> bool {
        self.query.segments.iter().all(|s| matches!(s, Segment::Selector(Selector::Name(_) | Selector::Index(_))))
    }

    /// Everything at the path.
    ///
    /// # Errors
    /// When it cannot be evaluated.
    pub fn all<'a>(&self, document: &'a Value) -> Result<Vec<&'a Value>, String> {
        let found = js_path_process(&self.query, document);
        let found = found.map_err(|_| format!("jsonPath {:?} cannot be evaluated on the answer", self.text))?;
        Ok(found.into_iter().map(QueryRef::val).collect())
    }

    /// The path as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The one value at the path.
    ///
    /// # Errors
    /// When there is none or more than one.
    pub fn one<'a>(&self, document: &'a Value) -> Result<&'a Value, String> {
        let found = self.all(document)?;
        let count = found.len();
        let mut found = found.into_iter();
        match (found.next(), count) {
            (Some(only), 1) => Ok(only),
            (None, _) => Err(format!("jsonPath {:?} finds nothing in the answer", self.text)),
            _ => Err(format!(
                "jsonPath {:?} finds {count} values in the answer where one is needed; for a list select the list itself",
                self.text
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths() {
        let doc = json!({"passRate": 0.95, "a": {"b": [1, 2]}, "odd-name": true, "list": [{"k": "x", "v": 7}]});
        let ok: &[(&str, Value)] = &[
            ("{$.passRate}", json!(0.95)),
            ("$.passRate", json!(0.95)),
            ("{.passRate}", json!(0.95)),
            (" { $.passRate } ", json!(0.95)),
            ("{$.a.b}", json!([1, 2])),
            ("{$.a.b[1]}", json!(2)),
            ("{$['odd-name']}", json!(true)),
            ("{$.list[?@.k=='x'].v}", json!(7)),
        ];
        for (path, value) in ok {
            assert_eq!(JsonPath::parse(path).unwrap().one(&doc), Ok(value), "{path}");
        }
        assert!(JsonPath::parse("{$}").unwrap().one(&doc).unwrap().is_object());
        for (path, what) in [("{$.nope}", "finds nothing"), ("{$.a.b[*]}", "finds 2 values"), ("{$.a.b[5]}", "finds nothing")] {
            let error = JsonPath::parse(path).unwrap().one(&doc).unwrap_err();
            assert!(error.contains(what) && error.contains(path), "{error}");
        }
        for path in ["", "passRate", "{$.a", "$.a}", "{$.a[}", "{}", "{$..}"] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }
}
