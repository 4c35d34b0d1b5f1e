//! Fills `{{args.NAME}}` in the fields of a gate, escaped for the place where the value lands.

use std::collections::BTreeMap;

use crate::sources::ArgValue;

/// A filled template.
#[derive(Clone, PartialEq, Eq)]
pub struct Filled {
    /// The text.
    pub text: String,
    /// A Secret's value is in it: it must not be shown.
    pub secret: bool,
}

impl std::fmt::Debug for Filled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.secret { "***" } else { &self.text })
    }
}

/// Arguments by name.
type Args = BTreeMap<String, ArgValue>;

/// Where a value is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// See [`fill_url`].
    Url,
    /// See [`fill_json`].
    Json,
    /// See [`fill_promql`].
    PromQl,
    /// See [`fill_header`].
    Header,
    /// See [`fill_text`].
    Text,
}

/// Fills a template for a place.
///
/// # Errors
/// See the function of the place.
pub fn fill(template: &str, place: Place, args: &Args) -> Result<Filled, String> {
    match place {
        Place::Url => fill_url(template, args),
        Place::Json => fill_json(template, args),
        Place::PromQl => fill_promql(template, args),
        Place::Header => fill_header(template, args),
        Place::Text => fill_text(template, args),
    }
}

/// Fills a URL: values are percent-encoded, and refused in scheme, user, host and port.
///
/// # Errors
/// An argument that is not there, stands in the wrong place, or makes a `.` or `..` path segment. Never holds a value.
pub fn fill_url(template: &str, args: &Args) -> Result<Filled, String> {
    if template.chars().any(char::is_control) {
        return Err("a URL has no line breaks or other control characters".into());
    }
    let rest = template.strip_prefix("https://").or_else(|| template.strip_prefix("http://"));
    let rest = rest.ok_or("a URL begins with http:// or https://, written out")?;
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    // URL parsers take a backslash for a slash, and skip empty authorities to what follows.
    if authority.is_empty() || authority.contains(['\\', ' ']) && !authority.contains("{{") {
        return Err("a URL needs a host after ://".into());
    }
    if authority.contains("{{") {
        return Err("arguments are not allowed in a URL's scheme, user, host or port; write them out".into());
    }
    let filled = fill_with(template, args, |_, _, value| Ok(percent_encode(value)))?;
    if filled.text != template && has_dot_segment(&filled.text) {
        return Err("an argument makes a `.` or `..` path segment".into());
    }
    Ok(filled)
}

/// Fills JSON text: inside a string the value is escaped, elsewhere it has to be a number, `true`, `false` or `null`.
///
/// # Errors
/// An argument that is not there, or that is text outside a JSON string. Never holds a value.
pub fn fill_json(template: &str, args: &Args) -> Result<Filled, String> {
    fill_with(template, args, |before, name, value| {
        if in_json_string(before) {
            let quoted = serde_json::Value::String(value.to_owned()).to_string();
            return Ok(quoted[1..quoted.len() - 1].to_owned());
        }
        let literal = serde_json::from_str::<serde_json::Value>(value).is_ok_and(|v| v.is_number() || v.is_boolean() || v.is_null());
        if literal { Ok(value.to_owned()) } else { Err(format!("the text of argument {name:?} needs double quotes around it in JSON")) }
    })
}

/// Fills PromQL: inside quotes the value is escaped, elsewhere it has to be a number, a duration or a name.
///
/// # Errors
/// An argument that is not there or that would change the query's structure. Never holds a value.
pub fn fill_promql(template: &str, args: &Args) -> Result<Filled, String> {
    fill_with(template, args, |before, name, value| match promql_place(before) {
        PromqlPlace::Quoted => Ok(escape_promql(value)),
        PromqlPlace::Raw if value.contains('`') => Err(format!("argument {name:?} has a backtick; use double quotes around it")),
        PromqlPlace::Raw => Ok(value.to_owned()),
        PromqlPlace::Comment if value.contains('\n') => Err(format!("argument {name:?} has a line break inside a comment")),
        PromqlPlace::Comment => Ok(value.to_owned()),
        PromqlPlace::Bare => {
            let plain = !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.'));
            if plain { Ok(value.to_owned()) } else { Err(format!("argument {name:?} needs quotes around it in the query")) }
        }
    })
}

/// Fills a header's value.
///
/// # Errors
/// An argument that is not there, or a line break or another control character. Never holds a value.
pub fn fill_header(template: &str, args: &Args) -> Result<Filled, String> {
    let filled = fill_text(template, args)?;
    if filled.text.chars().any(|c| c.is_control() && c != '\t') {
        return Err("a header's value has no line breaks or other control characters".into());
    }
    Ok(filled)
}

/// Fills plain text; nothing is escaped.
///
/// # Errors
/// An argument that is not there.
pub fn fill_text(template: &str, args: &Args) -> Result<Filled, String> {
    fill_with(template, args, |_, _, value| Ok(value.to_owned()))
}

/// Puts each value in. `escape` gets what stands before the place, the argument's name and its value.
fn fill_with(template: &str, args: &Args, escape: impl Fn(&str, &str, &str) -> Result<String, String>) -> Result<Filled, String> {
    let mut out = Filled { text: String::with_capacity(template.len()), secret: false };
    let mut rest = template;
    while let Some(open) = rest.find("{{") {
        let inner = &rest[open + 2..];
        let Some(reference) = inner.trim_start().strip_prefix("args.") else {
            // Two braces of the surrounding language.
            out.text.push_str(&rest[..open + 1]);
            rest = &rest[open + 1..];
            continue;
        };
        let close = reference.find("}}").ok_or("`{{args.` without `}}`")?;
        let name = reference[..close].trim();
        let arg = args.get(name).ok_or_else(|| {
            let known: Vec<&str> = args.keys().map(String::as_str).collect();
            format!("no argument named {name:?} is given; there are: {}", known.join(", "))
        })?;
        out.text.push_str(&rest[..open]);
        let value = escape(&out.text, name, &arg.text)?;
        out.text.push_str(&value);
        out.secret |= arg.secret;
        rest = &reference[close + 2..];
    }
    out.text.push_str(rest);
    Ok(out)
}

/// Everything but the unreserved characters of RFC 3986 section 2.3.
fn percent_encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for b in value.bytes() {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(b)),
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

/// URL parsers resolve these, spelled with `%2e` too, so that a value could leave its place in the path.
fn has_dot_segment(url: &str) -> bool {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    path.split('/').skip(3).any(|s| matches!(s.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | ".."))
}

/// Whether JSON text ends inside a string.
fn in_json_string(before: &str) -> bool {
    let (mut inside, mut escaped) = (false, false);
    for c in before.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if inside => escaped = true,
            '"' => inside = !inside,
            _ => {}
        }
    }
    inside
}

/// Where in a PromQL expression a text ends.
#[derive(PartialEq)]
enum PromqlPlace {
    Bare,
    Quoted,
    Raw,
    Comment,
}

fn promql_place(before: &str) -> PromqlPlace {
    let mut quote: Option<char> = None;
    let (mut escaped, mut comment) = (false, false);
    for c in before.chars() {
        match (quote, c) {
            _ if comment => comment = c != '\n',
            _ if escaped => escaped = false,
            (Some('"' | '\''), '\\') => escaped = true,
            (Some(q), c) if q == c => quote = None,
            (None, '"' | '\'' | '`') => quote = Some(c),
            (None, '#') => comment = true,
            _ => {}
        }
    }
    match quote {
        _ if comment => PromqlPlace::Comment,
        None => PromqlPlace::Bare,
        Some('`') => PromqlPlace::Raw,
        Some(_) => PromqlPlace::Quoted,
    }
}

/// PromQL string literals follow Go's escaping rules.
fn escape_promql(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\'' => out.push_str("\\x27"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(pairs: &[(&str, &str)]) -> Args {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), ArgValue { text: (*v).to_owned(), secret: *k == "token" })).collect()
    }

    #[test]
    fn urls_encode_values_and_keep_the_host() {
        let a = args(&[("v", "a/b?c=d&e#f é"), ("dots", ".."), ("dot", "."), ("empty", "")]);
        let ok = |t: &str| fill_url(t, &a).unwrap().text;
        assert_eq!(
            ok("https://evals.internal/run?version={{args.v}}"),
            "https://evals.internal/run?version=a%2Fb%3Fc%3Dd%26e%23f%20%C3%A9"
        );
        assert_eq!(ok("http://h:8080/{{ args.v }}/x"), "http://h:8080/a%2Fb%3Fc%3Dd%26e%23f%20%C3%A9/x");
        assert_eq!(ok("http://h/?q={{args.dots}}"), "http://h/?q=..");
        let refused = [
            "https://{{args.v}}/x",
            "https://h:{{args.v}}/x",
            "https://u{{args.v}}@h/x",
            "{{args.v}}://h/",
            "https:///{{args.v}}",
            "https://\t/{{args.v}}",
            "https:\\\\h\\{{args.v}}",
            "ftp://h/{{args.v}}",
            "http://h/a/{{args.dots}}/b",
            "http://h/a/{{args.dot}}{{args.dot}}",
            "http://h/a/%2e{{args.dot}}",
            "http://h/{{args.nope}}",
            "http://h/{{args.v",
        ];
        for t in refused {
            assert!(fill_url(t, &a).is_err(), "{t}");
        }
    }

    #[test]
    fn json_strings_are_escaped_and_bare_values_are_literals() {
        let a = args(&[("text", "a\"b\\c\nd"), ("n", "25"), ("b", "true")]);
        let body = fill_json(r#"{"t": "x {{args.text}}", "n": {{args.n}}, "b": {{args.b}}, "o": {"p": {"q": 1}}}"#, &a).unwrap().text;
        let v: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&v["t"], &v["n"], &v["b"]), (&"x a\"b\\c\nd".into(), &25.into(), &true.into()));
        assert!(fill_json(r#"{"t": {{args.text}}}"#, &a).is_err());
        let injected = args(&[("x", r#"1, "admin": true"#)]);
        assert!(fill_json(r#"{"t": {{args.x}}}"#, &injected).is_err());
    }

    #[test]
    fn promql_values_stay_in_their_string() {
        let a = args(&[("rev", "a\"} or vector(1) # \\ '"), ("w", "5m"), ("tick", "a`b"), ("nl", "x\ny")]);
        let q = |t: &str| fill_promql(t, &a).map(|f| f.text);
        assert_eq!(q(r#"m{r="{{args.rev}}"}[{{args.w}}]"#).unwrap(), r#"m{r="a\"} or vector(1) # \\ \x27"}[5m]"#);
        assert_eq!(q("m{r='{{args.rev}}'}").unwrap(), r"m{r='a\x22} or vector(1) # \\ \x27'}".replace("\\x22", "\\\""));
        assert!(q("m{r={{args.rev}}}").is_err());
        assert!(q("m{r=`{{args.tick}}`}").is_err());
        assert!(q("m # {{args.nl}}").is_err());
        assert!(q("m # it's\n{r=\"{{args.rev}}\"}").unwrap().contains("\\\"}"), "a quote in a comment opens no string");
    }

    #[test]
    fn headers_refuse_line_breaks_and_secrets_are_marked() {
        let a = args(&[("token", "s3cr3t"), ("bad", "x\r\nHost: evil"), ("v", "1")]);
        let filled = fill_header("Token {{args.token}}", &a).unwrap();
        assert!(filled.secret);
        assert_eq!(format!("{filled:?}"), "***");
        assert!(!fill_header("v{{args.v}}", &a).unwrap().secret);
        let error = fill_header("{{args.bad}}", &a).unwrap_err();
        assert!(!error.contains("evil"), "{error}");
        assert!(!fill_text("{{args.nope}}", &a).unwrap_err().contains("s3cr3t"));
    }

    #[test]
    fn other_braces_stay() {
        let a = args(&[("v", "1")]);
        assert_eq!(fill_text("{{ $labels }} {{{args.v}}} {{", &a).unwrap().text, "{{ $labels }} {1} {{");
    }
}
