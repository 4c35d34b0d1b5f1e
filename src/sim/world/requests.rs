//! Requests, and which http routes take them: an HTTPMatchRequest as Istio reads it.

use std::collections::BTreeMap;

use serde_json::Value;

/// Headers of a request, by name in lower case.
pub(super) type Headers = BTreeMap<String, String>;

/// A request.
pub(super) struct Request {
    path: String,
    headers: Headers,
}

impl Request {
    /// A request that `route` would take by its first match, if it were the only one, with these headers added.
    pub fn meant_for(route: &Value, headers: Headers) -> Self {
        let first = &route["match"][0];
        let text = |condition: &Value| ["exact", "prefix"].iter().find_map(|kind| condition[*kind].as_str()).map(ToOwned::to_owned);
        let own = first["headers"].as_object().into_iter().flatten();
        let mut all: Headers = own.map(|(name, condition)| (name.clone(), text(condition).unwrap_or_default())).collect();
        all.extend(headers);
        Self { path: text(&first["uri"]).unwrap_or_else(|| "/".into()), headers: all }
    }

    /// One of the route's matches holds, or it has none.
    pub fn is_taken_by(&self, route: &Value) -> bool {
        route["match"].as_array().is_none_or(|all| all.is_empty() || all.iter().any(|m| self.fulfils(m)))
    }

    fn fulfils(&self, wanted: &Value) -> bool {
        let headers = |field: &str| wanted[field].as_object().into_iter().flatten();
        let has = |name: &String, condition: &Value| self.headers.get(name).is_some_and(|value| says(condition, value));
        says(&wanted["uri"], &self.path)
            && headers("headers").all(|(name, condition)| has(name, condition))
            && !headers("withoutHeaders").any(|(name, condition)| has(name, condition))
    }
}

/// A StringMatch; one that says nothing asks for presence alone.
fn says(condition: &Value, text: &str) -> bool {
    if let Some(exact) = condition["exact"].as_str() {
        text == exact
    } else if let Some(prefix) = condition["prefix"].as_str() {
        text.starts_with(prefix)
    } else if let Some(regex) = condition["regex"].as_str() {
        // An expression that does not parse is refused by Istio; here it takes nothing.
        regex::Regex::new(&format!("^(?:{regex})$")).is_ok_and(|r| r.is_match(text))
    } else {
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_route_takes_what_one_of_its_matches_describes() {
        let headers = |all: &[(&str, &str)]| all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Headers>();
        let request = Request { path: "/ws/1".into(), headers: headers(&[("x-bucket", "07"), ("x-t", "a")]) };
        let taken = |m: Value| request.is_taken_by(&json!({"match": m}));
        for yes in [
            json!(null),
            json!([]),
            json!([{}]),
            json!([{"uri": {"prefix": "/ws"}}]),
            json!([{"uri": {"exact": "/no"}}, {"headers": {"x-bucket": {"regex": "0[0-9]"}, "x-t": {}}}]),
            json!([{"withoutHeaders": {"x-other": {}}}]),
        ] {
            assert!(taken(yes.clone()), "{yes}");
        }
        for no in [
            json!([{"uri": {"exact": "/ws"}}]),
            json!([{"headers": {"x-bucket": {"regex": "0"}}}]),
            json!([{"headers": {"x-bucket": {"regex": "("}}}]),
            json!([{"headers": {"x-bucket": {"exact": "07"}, "x-other": {}}}]),
            json!([{"uri": {"prefix": "/ws"}, "withoutHeaders": {"x-t": {"exact": "a"}}}]),
        ] {
            assert!(!taken(no.clone()), "{no}");
        }
        let meant = json!({"match": [{"uri": {"prefix": "/v1"}, "headers": {"x-a": {"exact": "b"}}}, {"uri": {"exact": "/other"}}]});
        let made = Request::meant_for(&meant, headers(&[("x-bucket", "07")]));
        assert!(made.is_taken_by(&meant) && made.headers["x-bucket"] == "07");
    }
}
